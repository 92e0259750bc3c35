"""The page of a search: one HTML file that needs no network, made by `tune` and `fer-ray report`.

It is made from `study.db`, the bundles' figures and the run's own files; names from a run are text
(Jinja escapes them) and the page's Content-Security-Policy lets nothing run or load.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fer_ray.errors import FerRayError, NothingSucceededError, UnfinishedError, UserError
from fer_ray.metrics import wilson_interval
from fer_ray.report.gap import Gap, explain, interval_gap, paired_gap
from fer_ray.report.page import render
from fer_ray.report.search_curves import curves_of, timeline_of
from fer_ray.report.search_params import parallel_of, slices_of
from fer_ray.search.history import RunHistory, TrialHistory
from fer_ray.search.importance import Importances, importances
from fer_ray.search.reading import read_run
from fer_ray.search.slots import slots_of
from fer_ray.search.watching import clock, show, status_of, why_of
from fer_ray.store import read_json, write_atomic

COMMAND = "report"
PAGE = "report.html"
Result = TypeVar("Result")
NUM_LEADERS = 15
NUM_CHANGES = 6
NUM_SLICES = 12
NUM_NAMED = 3
"""Trials named in one sentence."""
NUM_FAILURES = 50


@dataclass(frozen=True)
class Verdict:
    """What came of the search.

    Attributes:
        headline: one sentence.
        kind: `real`, `open` (cannot tell) or `none` (no winner).
        lines: what it rests on.
        gap: the winner against trial 0; None where they are the same or one has no figures.
    """

    headline: str
    kind: str
    lines: list[str]
    gap: Gap | None = None


@dataclass(frozen=True)
class Leader:
    """A row of the leaderboard."""

    place: int
    trial: TrialHistory
    state: str
    changes: str


def write_search_page(run_dir: Path) -> Path:
    """Write `report.html` of a run; an earlier one is replaced.

    Args:
        run_dir: a search that goes on, has ended or was killed.

    Raises:
        UserError: no search is there, or the page cannot be written.
    """
    text = search_page(read_run(run_dir))
    path = run_dir / PAGE
    try:
        write_atomic(path, text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def with_search_page(run_dir: Path, search: Callable[[], Result]) -> Result:
    """Search, then leave the page, also where the search ended early or came to nothing.

    A search that was refused before it began leaves no page: the run may be another's.

    Args:
        search: works on `run_dir` to its end.
    """
    try:
        result = search()
    except (UnfinishedError, NothingSucceededError):
        with contextlib.suppress(UserError):  # what ended the search is what matters
            write_search_page(run_dir)
        raise
    write_search_page(run_dir)
    return result


def search_page(history: RunHistory) -> str:
    """The page as text."""
    mattered = importances(history)
    order = _order(history, mattered)
    slots = slots_of(history)
    slices = slices_of(history, order)
    return render(
        "search.html",
        COMMAND,
        filters={"show": show, "clock": clock},
        history=history,
        name=history.base.name if history.base else history.directory.path.name,
        status=status_of(history),
        verdict=_verdict(history),
        leaders=_leaders(history),
        mattered=mattered,
        slices=slices[:NUM_SLICES],
        more_slices=slices[NUM_SLICES:],
        parallel=parallel_of(history, order),
        curves=curves_of(history),
        slots=slots,
        timeline=timeline_of(history, slots),
        exact_starts=all(t.is_exact for t in history.trained),
        confusion=_confusion(history),
        failures=[t for t in history.trained if t.state == "failed"][:NUM_FAILURES],
        rejected=[t for t in history.trials if t.state == "rejected"],
        commands=_commands(history),
        full_epochs=_full_epochs(history),
    )


def _order(history: RunHistory, mattered: Importances) -> list[str]:
    """Addresses, most important first; those that no method ranks in the order of the file."""
    ranked = [address for answer in mattered.answers for address, _ in answer.shares]
    holes = [hole.address for hole in history.space.holes] if history.space else []
    seen = [address for trial in history.trained for address in trial.params]
    return list(dict.fromkeys([*ranked, *holes, *seen]))


def _full_epochs(history: RunHistory) -> int | None:
    """Epochs of as many trials without any stopping."""
    if history.base is None:
        return None
    return len(history.trained) * history.base.train.epochs


# --- verdict --------------------------------------------------------------------------------------


def _verdict(history: RunHistory) -> Verdict:
    winner = history.winner
    if winner is None:
        return Verdict("No trial has a value yet.", "none", [])
    metric = history.metric
    is_over = all(trial.state != "running" for trial in history.trained)
    won = "won" if is_over else "leads so far"
    headline = f"Trial {winner.number} {won} with {metric} {winner.best:.4f}"
    lines = []
    figures = _figures(history, winner)
    if figures is not None:
        low, high = wilson_interval(figures["correct"], figures["count"])
        lines.append(
            f"Its bundle has {100 * figures['accuracy']:.1f} % validation accuracy in fp32 "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f}; always answering the commonest class: "
            f"{100 * figures['majority_accuracy']:.1f} %)."
        )
    lines += _cut_while_ahead(history, winner)
    if winner.number == 0:
        lines.append(
            "Trial 0, the space's defaults, is itself the best: the search found nothing better."
        )
        return Verdict(headline + ".", "open", lines)
    return _against_first(history, winner, figures, headline, lines)


def _cut_while_ahead(history: RunHistory, winner: TrialHistory) -> list[str]:
    """A line about trials that time ended, and that were better than the winner at that epoch."""
    named = []
    for trial in history.ranking:
        there = winner.value_at(trial.epoch) if trial.ended == "time budget" else None
        if there is not None and history.sign * (trial.best - there) > 0:
            at = f"{trial.best:.4f} at epoch {trial.epoch}, then {there:.4f}"
            named.append(f"trial {trial.number} ({at})")
    if not named:
        return []
    shown = ", ".join(named[:NUM_NAMED])
    more = f" and {len(named) - NUM_NAMED} more" if len(named) > NUM_NAMED else ""
    said = f"Ahead of it at the same epoch when the time budget ended them: {shown}{more}."
    return [f"{said} With more time one of them may win."]


def _against_first(
    history: RunHistory,
    winner: TrialHistory,
    figures: dict[str, Any] | None,
    headline: str,
    lines: list[str],
) -> Verdict:
    first = next((t for t in history.trained if t.number == 0 and t.has_value), None)
    if first is None:
        lines.append("Trial 0, the space's defaults, has no value: what tuning gained is unknown.")
        return Verdict(headline + ".", "open", lines)
    gain = history.sign * (winner.best - first.best)
    headline += f", {gain:.4f} better than the defaults (trial 0: {first.best:.4f})."
    confirmed = _confirmed(history, winner.number)
    if confirmed is not None:
        kind = "real" if confirmed["verdict"] == "beats" else "open"
        return Verdict(headline, kind, [*lines, *_confirmed_lines(history, confirmed)])
    gap, why_not = _gap(history, winner, first, figures)
    if why_not:
        lines.append(f"Not tested on the images: {why_not}.")
    if gap is None:
        return Verdict(headline, "open", lines)
    p = "" if gap.p is None else f", p = {gap.p:.2g}"
    lines.append(
        f"Gain in accuracy: {100 * gap.gain:+.1f} points (95 %: {100 * gap.low:+.1f} to "
        f"{100 * gap.high:+.1f}{p}). {gap.method}."
    )
    if gap.is_real and gap.gain < 0:
        said = (
            "On these images the winner's bundle is worse than trial 0's: another metric, or "
            "another precision, than the search went by"
        )
    elif gap.is_real:
        said = "On these images the gap is more than chance"
    else:
        said = (
            "Cannot tell: the gap may be chance. On these images a gain of about "
            f"{100 * gap.smallest:.1f} points would have shown"
        )
    lines.append(said + ".")
    lines.append(
        f"The winner is the best of {len(history.ranking)} trials on these very images, so part "
        "of its lead is luck whatever the test says, and one seed is no proof: "
        "`confirm: {top: 3, seeds: 3}` trains the best again on fresh seeds."
    )
    return Verdict(headline, "real" if gap.is_real and gap.gain > 0 else "open", lines, gap)


def _confirmed(history: RunHistory, number: int) -> dict[str, Any] | None:
    """What confirmation on fresh seeds found of a trial; None where it was not made."""
    comparisons = (history.attributes.get("confirm") or {}).get("comparisons") or []
    return next((dict(row) for row in comparisons if row.get("trial") == number), None)


def _confirmed_lines(history: RunHistory, found: dict[str, Any]) -> list[str]:
    confirm = history.attributes["confirm"]
    seeds = sum(row["trial"] == found["trial"] for row in confirm.get("trainings") or [])
    words = {
        "beats": "it beats the defaults",
        "is beaten by": "the defaults beat it",
        "cannot tell": "it cannot be told from the defaults",
    }
    text = (
        f"Confirmed on {seeds} fresh seeds: {words.get(found['verdict'], found['verdict'])}. "
        f"Accuracy {100 * found['accuracy']:.1f} % against {100 * found['default_accuracy']:.1f} "
        f"%, a difference of {100 * found['difference']:+.1f} points (95 % over all comparisons: "
        f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f})."
    )
    lines = [text]
    if found["verdict"] == "cannot tell":
        lines.append(
            f"A difference of about {100 * found['smallest']:.1f} points would have shown."
        )
    others = [row for row in confirm["comparisons"] if row["trial"] != found["trial"]]
    if others:
        rest = "; ".join(
            f"trial {row['trial']} {row['verdict']} ({100 * row['difference']:+.1f})"
            for row in others
        )
        lines.append(f"The others that were confirmed: {rest}.")
    return lines


def _gap(
    history: RunHistory,
    winner: TrialHistory,
    first: TrialHistory,
    figures: dict[str, Any] | None,
) -> tuple[Gap | None, str]:
    """The gap, paired where both bundles and the data are there; else why it is not."""
    why_not = ""
    missing = [t.number for t in (winner, first) if not history.directory.bundle(t.number).exists()]
    if missing:
        why_not = f"trial {missing[0]} left no bundle"
    elif history.base is not None:
        bundles = [history.directory.bundle(t.number) for t in (winner, first)]
        try:
            return paired_gap(bundles[0], bundles[1], history.base), ""
        except FerRayError as error:
            why_not = explain(error)
    else:
        why_not = "the run's search space cannot be read"
    others = _figures(history, first)
    if figures is None or others is None or figures["count"] != others["count"]:
        return None, why_not
    return interval_gap(figures["correct"], others["correct"], figures["count"]), why_not


def _figures(history: RunHistory, trial: TrialHistory) -> dict[str, Any] | None:
    """The validation figures of a trial's bundle; None where it left none, or they are no use."""
    path = history.directory.bundle(trial.number) / "metrics.json"
    try:
        figures = read_json(path)["validation"]
        wanted = ("correct", "count", "accuracy", "majority_accuracy")
        if all(isinstance(figures[key], int | float) for key in wanted) and figures["count"] > 0:
            return dict(figures)
    except (UserError, KeyError, TypeError):
        pass
    return None


# --- tables ---------------------------------------------------------------------------------------


def _leaders(history: RunHistory) -> list[Leader]:
    rows = []
    for place, trial in enumerate(history.ranking[:NUM_LEADERS], start=1):
        changes = [
            f"{_short(address)} {show(value)}"
            for address, _, value in why_of(history, trial.number).changes
            if value is not None
        ]
        text = ", ".join(changes[:NUM_CHANGES])
        if len(changes) > NUM_CHANGES:
            text += f" and {len(changes) - NUM_CHANGES} more"
        if trial.number == 0:
            text = "the defaults"
        rows.append(Leader(place, trial, trial.ended or trial.state, text))
    return rows


def _short(address: str) -> str:
    return address.rpartition(".")[2]


def _confusion(history: RunHistory) -> dict[str, Any] | None:
    """The winner's confusion matrix with the share of each true class; None without a bundle."""
    figures = _figures(history, history.winner) if history.winner else None
    try:
        if figures is None:
            return None
        names = [str(row["label"]) for row in figures["classes"]]
        matrix = [[int(value) for value in row] for row in figures["confusion"]]
    except (KeyError, TypeError, ValueError):
        return None
    rows = [
        {
            "name": name,
            "total": sum(row),
            "cells": [
                {"count": value, "share": value / max(1, sum(row)), "is_right": column == index}
                for column, value in enumerate(row)
            ],
        }
        for index, (name, row) in enumerate(zip(names, matrix, strict=False))
    ]
    return {"names": names, "rows": rows}


def _commands(history: RunHistory) -> list[tuple[str, str]]:
    """What to type to repeat and to use it, with what it does."""
    run = shlex.quote(str(history.directory.path))
    again = ["fer-ray", *[str(word) for word in history.document.get("command", [])[1:]]]
    commands = [("the search as it was started", shlex.join(again))]
    winner = history.winner
    base = history.base
    if winner is not None:
        resolved = shlex.quote(str(history.directory.trial(winner.number) / "resolved.yaml"))
        commands.append(
            (
                "the winner again, to the same result on this machine with one thread",
                f"fer-ray train {resolved} --out runs/again",
            )
        )
    if winner is not None and winner.bundle_id is not None:
        source = base.data.source if base is not None else None
        if source not in (None, "sample"):
            line = f"fer-ray evaluate {run} --data {shlex.quote(str(source))}"
            commands.append(("its figures on the validation split", line))
        commands.append(("serve it over HTTP", f"fer-ray serve --bundle {run}"))
        commands.append(("classify a folder", f"fer-ray score FOLDER --out scores --bundle {run}"))
    if any(t.state == "running" for t in history.trained):
        commands.append(("go on where it stopped", f"fer-ray resume {run}"))
    return commands
