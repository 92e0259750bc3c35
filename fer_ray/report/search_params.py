"""Slices and parallel coordinates of a search, as the geometry of SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fer_ray.config.holes import Hole
from fer_ray.report.scales import Axis, Tick, path_of
from fer_ray.report.search_curves import choose_trials
from fer_ray.search.history import RunHistory, TrialHistory
from fer_ray.search.watching import show

MAX_POINTS = 400
MAX_LINES = 250
MAX_AXES = 8
NUM_TINTS = 5
"""Fifths of the ranking, from the worst (0) to the best (4)."""


@dataclass(frozen=True)
class Point:
    """A trial in a slice; `kind` as in the learning curves, `tint` its fifth of the ranking."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Slice:
    """The objective by one hole's value."""

    address: str
    note: str
    points: list[Point]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left: float = 40.0
    right: float = 312.0
    top: float = 8.0
    bottom: float = 146.0


def slices_of(history: RunHistory, order: Sequence[str]) -> list[Slice]:
    """One slice a hole that took more than one value.

    Args:
        order: addresses, most important first.
    """
    trials = choose_trials(history, MAX_POINTS)
    result = []
    for address in order:
        having = [trial for trial in trials if address in trial.params]
        if len({show(trial.params[address]) for trial in having}) > 1:
            result.append(_slice(history, address, having, len(trials)))
    return result


def _slice(history: RunHistory, address: str, trials: list[TrialHistory], num_all: int) -> Slice:
    left, right, top, bottom = 40.0, 312.0, 8.0, 146.0
    x = axis_of(history, address, trials, left + 6, right - 6)
    values = [trial.best for trial in trials]
    room = 0.05 * (max(values) - min(values)) or 0.01
    y = Axis(bottom, top, min(values) - room, max(values) + room)
    winner = history.winner.number if history.winner else None
    points = [
        Point(
            round(x.at(_on(x, trial.params[address])) + _spread(x, trial.number), 1),
            y.at(trial.best),
            _kind(trial, winner),
            f"trial {trial.number}: {show(trial.params[address])}, best {trial.best:.4f} "
            f"({trial.ended or trial.state})",
        )
        for trial in reversed(trials)
    ]
    note = "" if len(trials) == num_all else f"reached by {len(trials)} of {num_all} trials"
    return Slice(address, note, points, _fit(x.ticks(4)), y.ticks(3))


def _kind(trial: TrialHistory, winner: int | None) -> str:
    if trial.number == winner:
        return "winner"
    if trial.number == 0:
        return "first"
    return "complete" if trial.state == "complete" else "stopped"


def _spread(axis: Axis, number: int) -> float:
    """Names would put many trials on one place: a fixed shift by the trial's number."""
    if not axis.names:
        return 0.0
    share = (axis.end - axis.start) / len(axis.names)
    return ((number * 0.618034) % 1.0 - 0.5) * min(0.5 * share, 46.0)


def _fit(ticks: list[Tick]) -> list[Tick]:
    """Names shortened to what stands between two ticks."""
    if len(ticks) < 2:
        return ticks
    room = max(3, int(abs(ticks[1].at - ticks[0].at) / 6.4))
    return [Tick(t.at, t.text if len(t.text) <= room else t.text[: room - 2] + "..") for t in ticks]


def axis_of(
    history: RunHistory, address: str, trials: Sequence[TrialHistory], start: float, end: float
) -> Axis:
    """The whole domain of a hole where the space is readable, else what the trials took."""
    taken = [trial.params[address] for trial in trials]
    hole = _hole(history, address)
    if hole is not None and hole.choices:
        return Axis(start, end, names=tuple(show(choice) for choice in _ordered(hole.choices)))
    if any(not isinstance(v, int | float) or isinstance(v, bool) for v in taken):
        return Axis(start, end, names=tuple(dict.fromkeys(show(value) for value in taken)))
    if hole is None:
        return Axis(start, end, float(min(taken)), float(max(taken)))
    is_log, is_whole = hole.kind == "log", hole.kind == "int"
    return Axis(start, end, float(hole.low), float(hole.high), is_log, is_whole)


def _ordered(choices: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers by size; everything else as the file has it."""
    if all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices):
        return tuple(sorted(choices))
    return choices


def _hole(history: RunHistory, address: str) -> Hole | None:
    holes = history.space.holes if history.space is not None else ()
    return next((hole for hole in holes if hole.address == address), None)


def _on(axis: Axis, value: Any) -> Any:
    return show(value) if axis.names else value


# --- parallel coordinates -------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One axis: a hole, or the objective (the last)."""

    x: float
    title: str
    lines: list[str]
    ticks: list[Tick]
    has_unused: bool = False


@dataclass(frozen=True)
class Strand:
    """One trial across all axes; `tint` is its fifth of the ranking, 4 the best."""

    path: str
    tint: int
    is_winner: bool
    title: str


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates; trials that do not reach a hole pass its axis at `unused`."""

    columns: list[Column]
    strands: list[Strand]
    width: float
    num_left_out: int
    has_unused: bool
    top: float = 52.0
    bottom: float = 300.0
    unused: float = 324.0


def parallel_of(history: RunHistory, order: Sequence[str]) -> Parallel | None:
    """All trials across the most important holes; None where nothing varied.

    Args:
        order: addresses, most important first.
    """
    trials = choose_trials(history, MAX_LINES)
    varied = [a for a in order if len({show(t.params.get(a)) for t in trials}) > 1][:MAX_AXES]
    if not varied or len(trials) < 2:
        return None
    top, bottom, unused = 52.0, 300.0, 324.0
    step, first = 118.0, 64.0
    axes = []
    columns = []
    for index, address in enumerate(varied):
        having = [trial for trial in trials if address in trial.params]
        axis = axis_of(history, address, having, bottom, top)
        axes.append(axis)
        lines = _title_lines(address)
        ticks = _fit_names(axis.ticks(4))
        is_partial = len(having) < len(trials)
        columns.append(Column(first + index * step, address, lines, ticks, is_partial))
    values = [trial.best for trial in trials]
    low, high = min(values), max(values)
    last = Axis(bottom, top, low, high if high > low else low + 0.01)
    columns.append(
        Column(first + len(varied) * step, history.metric, [history.metric], last.ticks(5))
    )
    winner = history.winner.number if history.winner else None
    strands = []
    for rank, trial in reversed(list(enumerate(trials))):
        points = [
            (
                column.x,
                round(
                    axis.at(_on(axis, trial.params[address])) + _spread(axis, trial.number) / 3, 1
                )
                if address in trial.params
                else unused,
            )
            for column, axis, address in zip(columns, axes, varied, strict=False)
        ]
        points.append((columns[-1].x, last.at(trial.best)))
        tint = NUM_TINTS - 1 - rank * NUM_TINTS // len(trials)
        text = ", ".join(f"{a} {show(trial.params[a])}" for a in varied if a in trial.params)
        strands.append(
            Strand(
                path_of(points),
                tint,
                trial.number == winner,
                f"trial {trial.number}, {trial.best:.4f}: {text}",
            )
        )
    strands.sort(key=lambda strand: strand.is_winner)
    return Parallel(
        columns,
        strands,
        columns[-1].x + 70,
        sum(t.has_value for t in history.trained) - len(trials),
        any(column.has_unused for column in columns),
    )


def _title_lines(address: str) -> list[str]:
    """An address over two lines: the last word, and where it stands."""
    head, _, tail = address.rpartition(".")
    head = head.removeprefix("train.").removeprefix("model.")
    return [tail, head if head not in ("train", "model") else ""]


def _fit_names(ticks: list[Tick]) -> list[Tick]:
    return [Tick(t.at, t.text if len(t.text) <= 12 else t.text[:10] + "..") for t in ticks]
