"""The curves of a training as geometry: the page draws them as SVG, `curves_png` as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 480.0, 300.0
"""Of a panel, in its own units; everything below lies inside."""
LEFT, RIGHT, TOP, BOTTOM = 54.0, 466.0, 44.0, 258.0
"""The edges of the plot within the panel."""
MAX_DOTS = 40
"""More epochs than these are drawn as a line alone."""
_MAX_X_TICKS, _MAX_Y_TICKS = 8, 6


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its number."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    name: str
    points: list[tuple[float, float]]

    @property
    def path(self) -> str:
        """The `d` of an SVG path."""
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Strip:
    """The part of a panel nearest to one epoch, with the epoch's numbers to show there."""

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        best: where the best epoch lies on the validation curve; None where there is none.
        best_text: what is written there.
        best_ends: the text ends at the mark instead of beginning there.
    """

    title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    strips: list[Strip]
    best: tuple[float, float] | None
    best_text: str
    best_ends: bool

    @property
    def has_dots(self) -> bool:
        """Whether each epoch gets a dot."""
        return len(self.curves[0].points) <= MAX_DOTS


def training_panels(curve: Sequence[dict[str, Any]]) -> list[Panel]:
    """Loss and accuracy, training beside validation; an epoch that diverged has no numbers.

    Args:
        curve: `EpochResult.as_dict` of each epoch.

    Returns:
        two panels; none where no epoch is finite.
    """
    rows = [row for row in curve if not row["diverged"]]
    if not rows:
        return []
    best = int(rows[-1]["best_epoch"])
    return [
        _panel("Loss (cross-entropy)", rows, "loss", best, lambda value: f"{value:.3f}", 1.0),
        _panel("Accuracy (%)", rows, "accuracy", best, lambda value: f"{value:.1f} %", 100.0),
    ]


def _panel(
    title: str,
    rows: Sequence[dict[str, Any]],
    what: str,
    best: int,
    write: Callable[[float], str],
    factor: float,
) -> Panel:
    epochs = [int(row["epoch"]) for row in rows]
    values = {
        name: [factor * row[f"{short}_{what}"] for row in rows]
        for name, short in (("training", "train"), ("validation", "val"))
    }
    every = [value for column in values.values() for value in column]
    levels = ticks(min(every), max(every), _MAX_Y_TICKS)

    def x(epoch: float) -> float:
        first, last = epochs[0], epochs[-1]
        share = 0.5 if first == last else (epoch - first) / (last - first)
        return LEFT + share * (RIGHT - LEFT)

    def y(value: float) -> float:
        share = (value - levels[0]) / (levels[-1] - levels[0])
        return BOTTOM - share * (BOTTOM - TOP)

    step = levels[1] - levels[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    marked = epochs.index(best) if best in epochs else None
    at = None if marked is None else (x(best), y(values["validation"][marked]))
    return Panel(
        title=title,
        x_ticks=[Tick(x(epoch), str(epoch)) for epoch in _epoch_ticks(epochs)],
        y_ticks=[Tick(y(level), f"{level:.{digits}f}") for level in levels],
        curves=[
            Curve(name, [(x(e), y(v)) for e, v in zip(epochs, column, strict=True)])
            for name, column in values.items()
        ],
        strips=_strips(epochs, values, x, write),
        best=at,
        best_text=""
        if marked is None
        else f"best epoch {best}: {write(values['validation'][marked])}",
        best_ends=at is not None and at[0] > (LEFT + RIGHT) / 2,
    )


def _strips(
    epochs: list[int],
    values: dict[str, list[float]],
    x: Callable[[float], float],
    write: Callable[[float], str],
) -> list[Strip]:
    strips = []
    for index, epoch in enumerate(epochs):
        left = max(LEFT, x(epoch - 0.5)) if len(epochs) > 1 else LEFT
        right = min(RIGHT, x(epoch + 0.5)) if len(epochs) > 1 else RIGHT
        numbers = ", ".join(f"{name} {write(column[index])}" for name, column in values.items())
        strips.append(Strip(left, right - left, f"epoch {epoch}: {numbers}"))
    return strips


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers in equal steps, from at most `low` to at least `high`.

    The steps are 1, 2 or 5 times a power of ten.
    """
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
    power = math.floor(math.log10((high - low) / most))
    for exponent in (power, power + 1):
        for step in (m * 10.0**exponent for m in (1, 2, 5)):
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if last - first + 1 <= most:
                return [round(number * step, 12) for number in range(first, last + 1)]
    raise AssertionError((low, high, most))


def _epoch_ticks(epochs: list[int]) -> list[int]:
    """The first epoch, and whole round numbers after it."""
    if len(epochs) <= _MAX_X_TICKS:
        return epochs
    step = next(
        m * 10**power
        for power in range(9)
        for m in (1, 2, 5)
        if (epochs[-1] - epochs[0]) / (m * 10**power) <= _MAX_X_TICKS - 1
    )
    rounds = [epoch for epoch in epochs if epoch % step == 0]
    return rounds if rounds[0] - epochs[0] < step / 2 else [epochs[0], *rounds]
