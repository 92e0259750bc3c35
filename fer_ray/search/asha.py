"""Asynchronous successive halving in epochs (Li et al. 2018, arXiv 1810.05934).

A trial is looked at when it reaches a rung (grace * reduction^k epochs). It goes on if it is among
the best 1/reduction of all that have reached this rung so far, itself included; the first always
does. Nothing is paused or promoted later. The state is a pure function of the curves, in the order
in which the values arrived.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Decision:
    """What happened to a trial at a rung.

    Attributes:
        rung: in epochs.
        rank: of the trial among those that reached it, from 1.
        count: how many reached it, this trial included: its place in the order of arrival.
        stop: whether the trial ends here.
        gain: its best value so far, more is better.
        threshold: the gain of the last that goes on, among those that have arrived.
    """

    rung: int
    rank: int
    count: int
    stop: bool
    gain: float
    threshold: float


def rungs_of(grace: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """Rungs below `epochs`: at the last epoch a trial is complete, not judged."""
    rungs = []
    rung = grace
    while rung < epochs:
        rungs.append(rung)
        rung *= reduction
    return tuple(rungs)


class Asha:
    """Rungs and their values.

    Args:
        rungs: in epochs, ascending; none switches it off.
        reduction: one in so many goes on.
        exempt: trials that count but are never stopped.
    """

    def __init__(self, rungs: Iterable[int], reduction: int, exempt: Iterable[int] = ()) -> None:
        self.rungs = tuple(rungs)
        self.reduction = reduction
        self.exempt = set(exempt)
        self._values: dict[int, dict[int, float]] = {rung: {} for rung in self.rungs}

    def decide(self, trial: int, epoch: int, gain: float) -> Decision | None:
        """Judge a trial that has just ended an epoch.

        Args:
            trial: its number.
            epoch: from 1.
            gain: its best value so far, more is better.

        Returns:
            None where the epoch is no rung, or the trial was judged there before.
        """
        if epoch not in self._values or trial in self._values[epoch]:
            return None
        values = self._values[epoch]
        values[trial] = gain
        rank = 1 + sum(other > gain for other in values.values())
        places = max(1, len(values) // self.reduction)
        threshold = heapq.nlargest(places, values.values())[-1]
        stop = rank > places and trial not in self.exempt
        return Decision(epoch, rank, len(values), stop, gain, threshold)

    def restore(self, trial: int, rung: int, gain: float) -> None:
        """Put a trial that was judged before the search was interrupted back at its rung."""
        self._values[rung][trial] = gain


@dataclass(frozen=True)
class JudgedTrial:
    """What a replay needs of a trial, as `study.db` holds it.

    Attributes:
        curve: rows with `epoch`, `best_objective` and `diverged`.
        rungs: recorded visits with `rung`, `rank`, `count` and `stop`.
    """

    number: int
    curve: Sequence[Mapping[str, Any]]
    rungs: Sequence[Mapping[str, Any]]


def replay(
    trials: Iterable[JudgedTrial],
    rungs: Iterable[int],
    reduction: int,
    exempt: Iterable[int],
    *,
    sign: float,
) -> tuple[int, list[str]]:
    """Decide everything again from the curves, in the order of arrival, and compare.

    Args:
        trials: all that were trained.
        rungs, reduction, exempt: of the search.
        sign: 1 where more is better, -1 where less is.

    Returns:
        how many decisions were compared, and a line for each that the curves do not give.
    """
    trials = list(trials)
    asha = Asha(rungs, reduction, exempt)
    faults = []
    visits = sorted(
        (
            (visit["rung"], visit["count"], trial, visit)
            for trial in trials
            for visit in trial.rungs
        ),
        key=lambda entry: entry[:2],
    )
    for rung, _, trial, visit in visits:
        row = next((row for row in trial.curve if row["epoch"] == rung), None)
        if row is None or row["diverged"]:
            faults.append(f"trial {trial.number} was judged at {rung}, which its curve has not")
            continue
        decision = asha.decide(trial.number, rung, sign * row["best_objective"])
        found = (visit["rank"], visit["count"], visit["stop"])
        if decision is None or (decision.rank, decision.count, decision.stop) != found:
            faults.append(f"trial {trial.number} at {rung}: recorded {found}, replayed {decision}")
    for trial in trials:
        judged = {visit["rung"] for visit in trial.rungs}
        stopped = min((v["rung"] for v in trial.rungs if v["stop"]), default=None)
        faults += [
            f"trial {trial.number} passed {row['epoch']} without being judged"
            for row in trial.curve
            if row["epoch"] in asha.rungs
            and not row["diverged"]
            and row["epoch"] not in judged
            and (stopped is None or row["epoch"] < stopped)
        ]
    return len(visits), faults
