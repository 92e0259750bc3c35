"""A run as its `study.db` tells it: trials, attempts, rungs. Reading it: `fer_ray.search.reading`.

`status`, the report and the DataFrame look at a run only through here. What an older run did not
record is None, which readers show as "not recorded".
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace
from fer_ray.errors import UserError
from fer_ray.runs import RunDirectory


@dataclass(frozen=True)
class RungVisit:
    """A trial at a rung.

    Attributes:
        rung: in epochs.
        rank: among those that had reached it, from 1.
        count: how many had, this trial included.
        stop: whether the trial ended here.
        value: its best value so far.
        threshold: what it took to go on: the value of the last that would have, among those that
            had reached the rung by then; None where the reduction is not recorded.
    """

    rung: int
    rank: int
    count: int
    stop: bool
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One process's work on a trial.

    Attributes:
        slot: from 0; None where it is not recorded.
        started: seconds since the epoch.
        ended: likewise; None where it goes on or was killed.
    """

    slot: int | None
    started: float
    ended: float | None


@dataclass(frozen=True)
class TrialHistory:
    """One trial of a study.

    Attributes:
        state: complete, pruned, failed, running, waiting or rejected (never trained: forbidden or
            above the limits).
        ended: the search's own word for how it ended, or why it was rejected.
        params: address -> value of its active holes.
        distributions: address -> Optuna's distribution as JSON text.
        stored: address -> Optuna's number for the value.
        curve: the epochs in order; of a running trial those that were reported, with `epoch` and
            `best_objective` alone where no more is known.
        visits: at the rungs, in order.
        attempts: the processes that worked on it. Where the run did not note them, one, that began
            as long before the trial's end as its epochs took: a trial may be asked for long before.
        is_exact: whether the run noted them.
        finished: when its end was recorded, seconds since the epoch.
        attributes: everything else that the search noted.
    """

    number: int
    state: str
    ended: str | None
    params: dict[str, Any]
    distributions: dict[str, str]
    stored: dict[str, float]
    curve: tuple[dict[str, Any], ...]
    visits: tuple[RungVisit, ...] = ()
    seed: int | None = None
    bundle_id: str | None = None
    error: str | None = None
    seconds: float | None = None
    attempts: tuple[Attempt, ...] = ()
    is_exact: bool = True
    finished: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Epochs trained; 0 before the first report."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def started(self) -> float | None:
        """When its first process began, seconds since the epoch."""
        return self.attempts[0].started if self.attempts else None

    @property
    def best(self) -> float:
        """Best objective; NaN where there is none."""
        finite = [row for row in self.curve if not row.get("diverged")]
        return float(finite[-1]["best_objective"]) if finite else math.nan

    @property
    def has_value(self) -> bool:
        return not math.isnan(self.best)

    @property
    def best_epoch(self) -> int:
        """The epoch of `best`; 0 where there is none."""
        best = self.best
        matching = (r["epoch"] for r in self.curve if r.get("best_objective") == best)
        return int(next(matching, 0))

    def value_at(self, epoch: int) -> float | None:
        """Best objective up to an epoch that it has reached, else None."""
        if epoch > self.epoch:
            return None
        rows = [r for r in self.curve if r["epoch"] <= epoch and not r.get("diverged")]
        return float(rows[-1]["best_objective"]) if rows else None


@dataclass(frozen=True)
class RunHistory:
    """One run.

    Attributes:
        directory: where everything stands.
        document: `run.json`.
        attributes: of the study.
        status: `status.json`, empty before the first.
        maximize: whether more is better.
        trials: by number, the waiting and rejected included.
        space: the search space with the run's own overrides; None for a single training, or where
            this fer-ray cannot read it.
    """

    directory: RunDirectory
    document: dict[str, Any]
    attributes: dict[str, Any]
    status: dict[str, Any]
    maximize: bool
    trials: tuple[TrialHistory, ...]
    space: SearchSpace | None

    @property
    def sign(self) -> float:
        return 1.0 if self.maximize else -1.0

    @cached_property
    def trained(self) -> tuple[TrialHistory, ...]:
        """Trials that were, or are being, trained."""
        return tuple(t for t in self.trials if t.state not in ("waiting", "rejected"))

    @cached_property
    def ranking(self) -> tuple[TrialHistory, ...]:
        """Trials with a value, best first; ties to the earlier one."""
        having = [trial for trial in self.trained if trial.has_value]
        return tuple(sorted(having, key=lambda t: (-self.sign * t.best, t.number)))

    @cached_property
    def winner(self) -> TrialHistory | None:
        """The best trial that left a bundle, else the best so far, else None."""
        with_bundle = [t for t in self.ranking if t.bundle_id is not None]
        return next(iter(with_bundle or self.ranking), None)

    def trial(self, number: int) -> TrialHistory:
        """One trial.

        Raises:
            UserError: there is none of this number.
        """
        found = next((trial for trial in self.trials if trial.number == number), None)
        if found is None:
            numbers = [trial.number for trial in self.trials]
            known = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "it has none"
            raise UserError(f"{self.directory.path} has no trial {number}; {known}")
        return found

    @property
    def base(self) -> Config | None:
        """The config of trial 0; None where the space is not readable."""
        return self.space.base if self.space is not None else None

    @property
    def metric(self) -> str:
        return self.base.objective.metric if self.base else "objective"

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are judged; where not recorded, at which any was."""
        recorded = self.attributes.get("rungs")
        if recorded is not None:
            return tuple(int(rung) for rung in recorded)
        return tuple(sorted({visit.rung for trial in self.trained for visit in trial.visits}))

    @property
    def sessions(self) -> tuple[dict[str, Any], ...]:
        """Each `tune` and `resume`, as the study noted them; none in older runs."""
        return tuple(self.attributes.get("sessions") or ())

    @property
    def wanted(self) -> int | None:
        """Trials that the search is to train; None where it is not recorded."""
        noted = self.sessions[-1].get("trials") if self.sessions else None
        number = self.status.get("trials_wanted", noted)
        return int(number) if number is not None else None

    def ended(self) -> dict[str, int]:
        """How many trials ended how."""
        return dict(Counter(t.ended or t.state for t in self.trained if t.state != "running"))

    def frame(self) -> Any:
        """One row a trained trial as a pandas DataFrame: number, state, value, every hole."""
        import pandas as pd

        addresses = list(dict.fromkeys(a for t in self.trained for a in t.params))
        rows = [
            {
                "number": trial.number,
                "state": trial.state,
                "ended": trial.ended,
                "value": trial.best,
                "best_epoch": trial.best_epoch,
                "epochs": trial.epoch,
                "seconds": trial.seconds,
                "seed": trial.seed,
                "bundle_id": trial.bundle_id,
                "error": trial.error,
                **{address: trial.params.get(address) for address in addresses},
            }
            for trial in self.trained
        ]
        return pd.DataFrame(rows)
