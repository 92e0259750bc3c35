"""The learning curves and the timeline of a search, as the geometry of SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fer_ray.report.scales import Axis, Tick, path_of
from fer_ray.search.history import RunHistory, TrialHistory
from fer_ray.search.slots import Slots
from fer_ray.search.watching import clock

MAX_LINES = 300
"""Trials drawn as lines; more would be ink, not information."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 628.0, 18.0, 286.0


@dataclass(frozen=True)
class Line:
    """One trial's curve.

    Attributes:
        kind: `winner`, `first` (trial 0), `complete` or `stopped`.
        end: its last point.
        title: shown when it is pointed at.
    """

    number: int
    kind: str
    path: str
    end: tuple[float, float]
    title: str


@dataclass(frozen=True)
class Label:
    """The name of a line beside its end."""

    kind: str
    text: str
    at: float


@dataclass(frozen=True)
class Curves:
    """Learning curves; `cut` says below (above) what they are cut off, if they are."""

    lines: list[Line]
    labels: list[Label]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    rungs: list[Tick]
    cut: str
    num_left_out: int
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM


def curves_of(history: RunHistory) -> Curves | None:
    """Objective by epoch of every trial; None before the first epoch."""
    trials = choose_trials(history, MAX_LINES)
    series = {t.number: _points(t) for t in trials}
    values = sorted(v for points in series.values() for _, v in points)
    if not values:
        return None
    epochs = max(epoch for points in series.values() for epoch, _ in points)
    low, high = _range(values, maximize=history.maximize)
    x = Axis(_LEFT, _RIGHT, 0.0 if epochs == 1 else 1.0, float(epochs))
    y = Axis(_BOTTOM, _TOP, low, high)
    winner = history.winner.number if history.winner else None
    lines = [_line(t, series[t.number], x, y, winner) for t in trials if series[t.number]]
    order = ("stopped", "complete", "first", "winner")
    cut = ""
    if values[0] < low:
        cut = f"Values below {low:.3g} are cut off."
    elif values[-1] > high:
        cut = f"Values above {high:.3g} are cut off."
    return Curves(
        lines=sorted(lines, key=lambda line: order.index(line.kind)),
        labels=_labels(lines),
        x_ticks=[tick for tick in x.ticks(8) if "." not in tick.text],
        y_ticks=y.ticks(5),
        rungs=[Tick(x.at(rung), str(rung)) for rung in history.rungs],
        cut=cut,
        num_left_out=sum(t.has_value for t in history.trained) - len(trials),
    )


def choose_trials(history: RunHistory, most: int) -> list[TrialHistory]:
    """Trials with a value: all, or the best half of `most` and of the others as many, evenly.

    Trial 0 is always among them.
    """
    ranking = list(history.ranking)
    if len(ranking) <= most:
        return ranking
    best, others = ranking[: most // 2], ranking[most // 2 :]
    step = len(others) / (most - len(best))
    chosen = [others[int(index * step)] for index in range(most - len(best))]
    first = [trial for trial in others if trial.number == 0]
    if first and first[0] not in chosen:
        chosen = sorted([*first, *chosen[:-1]], key=others.index)
    return best + chosen


def _points(trial: TrialHistory) -> list[tuple[int, float]]:
    return [
        (int(row["epoch"]), float(row.get("objective", row["best_objective"])))
        for row in trial.curve
        if not row.get("diverged")
    ]


def _range(values: Sequence[float], *, maximize: bool) -> tuple[float, float]:
    """From the worst twentieth to the best, so that one bad start does not flatten the rest."""
    cut = len(values) // 20
    low, high = (values[cut], values[-1]) if maximize else (values[0], values[-1 - cut])
    room = 0.04 * (high - low) or 0.01
    return low - room, high + room


def _line(
    trial: TrialHistory, points: list[tuple[int, float]], x: Axis, y: Axis, winner: int | None
) -> Line:
    placed = [(x.at(epoch), min(max(y.at(value), -1e4), 1e4)) for epoch, value in points]
    if len(placed) == 1:
        # A lone epoch is a short dash.
        (at, height) = placed[0]
        placed = [(at - 3, height), (at + 3, height)]
    kind = "complete" if trial.state == "complete" else "stopped"
    if trial.number == 0:
        kind = "first"
    if trial.number == winner:
        kind = "winner"
    return Line(
        trial.number,
        kind,
        path_of(placed),
        placed[-1],
        f"trial {trial.number}: {trial.ended or trial.state} after epoch {trial.epoch}, best "
        f"{trial.best:.4f} at epoch {trial.best_epoch}",
    )


def _labels(lines: list[Line]) -> list[Label]:
    """Names of the winner and of trial 0, at the height of their ends but not on each other."""
    labels: list[Label] = []
    for line in sorted((k for k in lines if k.kind in ("winner", "first")), key=lambda k: k.end[1]):
        lowest = labels[-1].at + 15 if labels else _TOP + 4
        at = min(max(line.end[1] + 4, lowest), _BOTTOM + 4)
        labels.append(Label(line.kind, f"trial {line.number}", at))
    return labels


# --- timeline -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A trial in a slot, SVG units; `kind` is how it ended."""

    x: float
    y: float
    width: float
    kind: str
    text: str
    title: str


@dataclass(frozen=True)
class Timeline:
    """Slots by time."""

    blocks: list[Block]
    rows: list[Tick]
    ticks: list[Tick]
    row_height: float
    height: float
    unit: str
    left: float = 54.0
    right: float = 700.0


_ENDS = {"complete": "complete", "pruned": "pruned", "failed": "failed", "running": "running"}


def timeline_of(history: RunHistory, slots: Slots) -> Timeline | None:
    """Who trained where and when; None before the first trial."""
    if not slots.stays or slots.span_s <= 0:
        return None
    row = 26.0 if slots.count <= 16 else 14.0
    unit, scale = ("min", 60.0) if slots.span_s > 180 else ("s", 1.0)
    if slots.span_s > 3 * 3600:
        unit, scale = "h", 3600.0
    x = Axis(54.0, 700.0, 0.0, slots.span_s / scale)
    states = {trial.number: trial for trial in history.trained}
    blocks = []
    for stay in slots.stays:
        trial = states[stay.trial]
        left, right = x.at(stay.start_s / scale), x.at(stay.end_s / scale)
        kind = _ENDS.get(trial.state, "failed")
        if trial.state == "pruned" and trial.ended != "pruned":
            kind = "ended"
        blocks.append(
            Block(
                left,
                stay.slot * row + 2,
                max(0.8, round(right - left - 0.6, 1)),
                kind,
                str(trial.number) if right - left > 8 + 7 * len(str(trial.number)) else "",
                f"trial {trial.number}: {trial.ended or trial.state}, "
                f"{clock(stay.end_s - stay.start_s)}, {trial.epoch} epochs",
            )
        )
    rows = [Tick(slot * row + row / 2, f"slot {slot + 1}") for slot in range(slots.count)]
    return Timeline(blocks, rows, x.ticks(7), row - 4, slots.count * row + 4, unit)
