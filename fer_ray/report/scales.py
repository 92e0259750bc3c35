"""Values to places on a chart: linear, logarithmic and named axes with their ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tick:
    """A mark of an axis.

    Attributes:
        at: SVG units along the axis.
        text: beside it.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A range of numbers, or names in order, along a line from `start` to `end` (SVG units).

    Of a range with `is_whole`, only whole numbers are marked.
    """

    start: float
    end: float
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    is_whole: bool = False
    names: tuple[str, ...] = ()

    def at(self, value: Any) -> float:
        """Where a value lies; a name by its place in the order, in the middle of its share."""
        if self.names:
            share = (self.names.index(str(value)) + 0.5) / len(self.names)
        elif self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[Tick]:
        """About `count` round marks, or all names."""
        if self.names:
            return [Tick(self.at(name), name) for name in self.names]
        marks = (
            log_marks(self.low, self.high) if self.is_log else marks_of(self.low, self.high, count)
        )
        if self.is_whole:
            marks = [mark for mark in marks if mark == int(mark)]
        return [Tick(self.at(mark), number_text(mark)) for mark in marks]


def marks_of(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within a range; at most `count` + 1."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_marks(low: float, high: float) -> list[float]:
    """Powers of ten within a range; with 2 and 5 between where fewer than three fit."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    slack = 1 + 1e-9
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [f * 10.0**p for p in powers for f in factors]
        inside = [mark for mark in found if low / slack <= mark <= high * slack]
        if len(inside) >= 3:
            return inside
    return inside


def number_text(value: float) -> str:
    """A tick's number, short."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """A line through points, as the `d` of an SVG path."""
    return "".join(f"{'ML'[index > 0]}{x:g} {y:g}" for index, (x, y) in enumerate(points))
