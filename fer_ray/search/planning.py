"""What a search is going to cost, by arithmetic alone: ASHA's expectation, time, disk.

ASHA's share that goes on is more than one in `reduction`: the first at a rung always goes on, and
the early ones are judged against few. The n-th to arrive goes on if it is among the best
max(1, floor(n / reduction)) of the n; where all orders are equally likely that has the probability
max(1, floor(n / reduction)) / n, whatever the curves look like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_BYTES_A_WEIGHT = 4
_BUNDLE_EXTRA_BYTES = 600_000
"""Golden faces, card, licence, JSON."""
_ROW_BYTES = 700
"""Of an epoch in study.db: its row of the curve and Optuna's intermediate value."""
_TRIAL_BYTES = 40_000
"""Of a trial elsewhere: study.db's other rows, resolved.yaml, Ray's own files."""
_STUDY_BYTES = 200_000
_CHECKPOINT_COPIES = 5
"""Weights, their average, the best ones, and the optimizer's two moments."""


@dataclass(frozen=True)
class RungPlan:
    """One rung.

    Attributes:
        rung: in epochs.
        arrive, go_on: trials, expected.
    """

    rung: int
    arrive: float
    go_on: float


@dataclass(frozen=True)
class Expectation:
    """What ASHA makes of so many trials.

    Attributes:
        complete: trials that reach the last epoch, expected.
        epochs: trained in all, expected.
        full_epochs: the same without stopping.
    """

    trials: int
    rungs: tuple[RungPlan, ...]
    complete: float
    epochs: float
    full_epochs: int


def expectation(trials: int, rungs: Sequence[int], reduction: int, epochs: int) -> Expectation:
    """Trials a rung and epochs in all.

    Trial 0 arrives first and is never stopped. A rung's later arrivals follow from the expected
    number of those that went on before; divergence, failures and time budgets are left out.

    Args:
        trials: to train.
        rungs: below `epochs`, ascending; none where nothing is stopped.
        reduction: one in so many goes on.
        epochs: of a complete trial.
    """
    arrive, trained, before = float(trials), 0.0, 0
    plans = []
    for rung in rungs:
        trained += arrive * (rung - before)
        go_on = _go_on(arrive, reduction)
        plans.append(RungPlan(rung, arrive, go_on))
        arrive, before = go_on, rung
    trained += arrive * (epochs - before)
    return Expectation(trials, tuple(plans), arrive, trained, trials * epochs)


def _go_on(arrive: float, reduction: int) -> float:
    """Expected number that goes on of `arrive` at a rung, the first of them trial 0."""
    whole = math.floor(arrive)
    total = sum(max(1, n // reduction) / n for n in range(1, whole + 1))
    following = whole + 1
    return total + (arrive - whole) * max(1, following // reduction) / following


@dataclass(frozen=True)
class TimePlan:
    """Seconds of the whole search.

    Attributes:
        expected_s: with the mean configuration's epoch.
        low_s, high_s: if every trial were the cheapest, or the dearest.
        slot_hours: slots x expected time.
    """

    expected_s: float
    low_s: float
    high_s: float
    slot_hours: float


def time_plan(
    epochs: float,
    trials: int,
    slots: int,
    *,
    epoch_s: tuple[float, float, float],
    overhead_s: float,
    last_epochs: int,
) -> TimePlan:
    """How long a search takes.

    Args:
        epochs: trained in all.
        slots: trials at once.
        epoch_s: of the cheapest, the mean and the dearest configuration.
        overhead_s: of a trial beside its epochs.
        last_epochs: of a complete trial: on average half of one stands alone at the end.
    """

    def of(seconds: float) -> float:
        busy = (epochs * seconds + trials * overhead_s) / slots
        alone = last_epochs * seconds / 2 if slots > 1 else 0.0
        return busy + alone

    low, mean, high = (of(seconds) for seconds in epoch_s)
    return TimePlan(mean, low, high, slots * mean / 3600)


@dataclass(frozen=True)
class DiskPlan:
    """Bytes a run needs at most.

    Attributes:
        bundles: kept, trial 0's and those just being packed.
        checkpoints: of the trials under way.
        records: study.db, resolved configurations and the like.
    """

    bundles: int
    checkpoints: int
    records: int

    @property
    def total(self) -> int:
        return self.bundles + self.checkpoints + self.records


def disk_plan(params: int, *, trials: int, epochs: float, slots: int, keep: int) -> DiskPlan:
    """Disk that a run needs if every network has `params` parameters."""
    weights = params * _BYTES_A_WEIGHT
    bundle = weights + _BUNDLE_EXTRA_BYTES
    kept = min(keep, trials) + 1 + slots
    return DiskPlan(
        kept * bundle,
        slots * _CHECKPOINT_COPIES * weights,
        _STUDY_BYTES + trials * _TRIAL_BYTES + round(epochs * _ROW_BYTES),
    )


def epoch_seconds(macs: float, cheap: tuple[float, float], dear: tuple[float, float]) -> float:
    """An epoch's seconds between two measured networks, straight by multiply-adds.

    Args:
        macs: of the network.
        cheap, dear: (multiply-adds, seconds) of the two.
    """
    (low, low_s), (high, high_s) = cheap, dear
    if high <= low:
        return (low_s + high_s) / 2
    share = min(max((macs - low) / (high - low), 0.0), 1.0)
    return low_s + share * (high_s - low_s)
