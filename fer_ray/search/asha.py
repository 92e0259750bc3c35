"""Asynchronous successive halving in epochs (Li et al. 2018, arXiv 1810.05934).

A trial is looked at when it reaches a rung (grace * reduction^k epochs). It goes on if it is among
the best 1/reduction of all that have reached this rung so far, itself included; the first always
does. Nothing is paused or promoted later. The state is a pure function of the curves, in the order
in which the values arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What happened to a trial at a rung.

    Attributes:
        rung: in epochs.
        rank: of the trial among those that reached it, from 1.
        count: how many reached it, this trial included.
        stop: whether the trial ends here.
    """

    rung: int
    rank: int
    count: int
    stop: bool


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

    def __init__(
        self, rungs: Iterable[int], reduction: int, exempt: frozenset[int] = frozenset()
    ) -> None:
        self.rungs = tuple(rungs)
        self.reduction = reduction
        self.exempt = exempt
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
        stays = rank <= max(1, len(values) // self.reduction)
        return Decision(epoch, rank, len(values), not stays and trial not in self.exempt)
