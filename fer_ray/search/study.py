"""The study: Optuna's storage as the only truth of a search.

Asks for configurations, takes in epochs, decides with ASHA, tells Optuna how each trial ended:
COMPLETE at its last epoch, PRUNED when stopped before, FAIL on an error. The value told is the
best epoch's, never the last one's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from fer_ray.config.holes import Hole
from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace
from fer_ray.errors import FerRayError
from fer_ray.runs import RunDirectory
from fer_ray.search.asha import Asha, Decision, rungs_of

_MAX_REJECTED = 200
"""Asked configurations in a row that may be forbidden or above the limits."""


@dataclass(frozen=True)
class Asked:
    """A configuration to train.

    Attributes:
        number: the trial's number in the study.
        params: address -> value of its active holes.
        config: resolved, with a seed of its own.
    """

    number: int
    params: dict[str, Any]
    config: Config


@dataclass
class LiveTrial:
    """What the driver knows of a trial that is under way or over."""

    asked: Asked
    trial: optuna.Trial
    started: float = field(default_factory=time.time)
    curve: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    ended: str | None = None
    seconds: float = 0.0
    bundle_id: str | None = None
    error: str | None = None

    @property
    def number(self) -> int:
        return self.asked.number

    @property
    def epoch(self) -> int:
        return self.curve[-1]["epoch"] if self.curve else 0

    @property
    def has_value(self) -> bool:
        return any(not row["diverged"] for row in self.curve)

    @property
    def best(self) -> float:
        """Best objective so far; NaN before the first epoch."""
        return float(self.curve[-1]["best_objective"]) if self.has_value else math.nan


class Study:
    """One search.

    Args:
        run: its directory; `study.db` is made there.
        space: checked.
    """

    def __init__(self, run: RunDirectory, space: SearchSpace) -> None:
        self.run = run
        self.space = space
        base = space.base
        self.sign = 1.0 if base.objective.goal == "maximize" else -1.0
        rungs: tuple[int, ...] = ()
        reduction = 2
        if base.scheduler != "none":
            reduction = base.scheduler.asha.reduction
            rungs = rungs_of(base.scheduler.asha.grace_epochs, reduction, base.train.epochs)
        self.asha = Asha(rungs, reduction, exempt=frozenset({0}))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(f"sqlite:///{run.study_db}")
        self._optuna = optuna.create_study(
            study_name=base.name,
            storage=storage,
            sampler=_sampler(base),
            direction=base.objective.goal,
        )
        self.trials: dict[int, LiveTrial] = {}
        self.num_rejected = 0
        for params in self._first_points():
            self._optuna.enqueue_trial(
                {address: encode(value) for address, value in params.items()}
            )

    def _first_points(self) -> Iterator[dict[str, Any]]:
        """Trial 0 is the defaults; then `start_from`, or the grid."""
        base = self.space.base
        defaults = self.space.complete({})
        yield defaults
        assert isinstance(base.search.start_from, tuple)
        for point in base.search.start_from:
            yield self.space.check_point(point)
        if base.search.sampler == "grid":
            for count, params in enumerate(self.space.grid()):
                if count >= base.search.trials:
                    return
                if params != defaults:
                    yield params

    @property
    def num_trials(self) -> int:
        """Trials wanted: `search.trials`, or fewer where a grid has fewer points."""
        base = self.space.base
        if base.search.sampler != "grid":
            return base.search.trials
        return min(base.search.trials, sum(1 for _ in self.space.grid()))

    def ask(self) -> Asked:
        """Sample the next configuration that is neither forbidden nor above the limits.

        Raises:
            FerRayError: hardly any configuration of this space is allowed.
        """
        for _ in range(_MAX_REJECTED):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                trial = self._optuna.ask()
                params = self.space.draw(functools.partial(_suggest, trial))
            why = rejection(self.space, params)
            if why is None:
                asked = Asked(trial.number, params, self._config(trial.number, params))
                trial.set_user_attr("seed", asked.config.train.seed)
                self.trials[trial.number] = LiveTrial(asked, trial)
                self.run.write_resolved(trial.number, asked.config)
                return asked
            self.num_rejected += 1
            trial.set_constraint("allowed", 1.0)  # above 0 is infeasible
            trial.set_user_attr("ended", why)
            self._optuna.tell(trial, state=TrialState.FAIL)
        raise FerRayError(
            f"{_MAX_REJECTED} sampled configurations in a row are forbidden or above the limits",
            "Widen `limits` or `forbid`, or narrow the ranges that break them.",
        )

    def _config(self, number: int, params: Mapping[str, Any]) -> Config:
        seed = _trial_seed(self.space.base.search.seed, number)
        config = self.space.resolve(params)
        train = config.train.model_copy(update={"seed": seed})
        return config.model_copy(update={"train": train})

    def record(self, number: int, rows: list[dict[str, Any]]) -> bool:
        """Take in epochs of a trial, in order.

        Returns:
            whether ASHA stops the trial now.
        """
        live = self.trials[number]
        stop = False
        for row in rows:
            if row["epoch"] <= live.epoch:
                continue  # a retried trial reports epochs again
            live.curve.append(row)
            if row["diverged"]:
                continue
            # Best so far: it is what scheduler, sampler and ranking see, and what Optuna takes
            # for a pruned trial's value.
            live.trial.report(row["best_objective"], row["epoch"])
            decision = self.asha.decide(number, row["epoch"], self.sign * row["best_objective"])
            if decision is not None:
                live.decisions.append(decision)
                stop = stop or decision.stop
        return stop

    def finish(
        self, number: int, ended: str, *, bundle_id: str | None = None, error: str | None = None
    ) -> None:
        """Tell Optuna how a trial ended.

        Args:
            number: the trial.
            ended: `complete`, `early stop`, `pruned`, `diverged`, `time budget`, `interrupted`
                or `failed`.
            bundle_id: of the bundle it left.
            error: last line of what went wrong.
        """
        live = self.trials[number]
        if live.ended is not None:
            return
        live.ended, live.bundle_id, live.error = ended, bundle_id, error
        live.seconds = time.time() - live.started
        attributes: dict[str, Any] = {
            "ended": ended,
            "curve": live.curve,
            "rungs": [vars(decision) for decision in live.decisions],
            "bundle_id": bundle_id,
            "error": error,
            "seconds": round(live.seconds, 3),
        }
        for name, value in attributes.items():
            live.trial.set_user_attr(name, value)
        if ended in ("complete", "early stop"):
            self._optuna.tell(live.trial, live.best)
        elif ended == "failed" or not live.has_value:
            self._optuna.tell(live.trial, state=TrialState.FAIL)
        else:
            self._optuna.tell(live.trial, state=TrialState.PRUNED)

    @property
    def frozen_trials(self) -> list[FrozenTrial]:
        """Optuna's own view."""
        return self._optuna.get_trials(deepcopy=False)

    def ranking(self) -> list[LiveTrial]:
        """Trials with a value, best first; ties to the earlier one."""
        having = [live for live in self.trials.values() if live.has_value]
        return sorted(having, key=lambda live: (-self.sign * live.best, live.number))


def rejection(space: SearchSpace, params: Mapping[str, Any]) -> str | None:
    """Why a configuration is never trained: forbidden, or above the limits; None if it may be."""
    if space.is_forbidden(params):
        return "forbidden"
    limits = space.base.limits
    if limits.params is None and limits.macs is None:
        return None
    from fer_ray.models.build import size_of

    num_params, macs = size_of(space.resolve(params))
    if limits.params is not None and num_params > limits.params:
        return f"{num_params:,} parameters, the limit is {limits.params:,}"
    if limits.macs is not None and macs > limits.macs:
        return f"{macs:,} multiply-adds, the limit is {limits.macs:,}"
    return None


def _sampler(base: Config) -> BaseSampler:
    if base.search.sampler != "tpe":
        return RandomSampler(seed=base.search.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=base.search.seed,
        )


def encode(value: Any) -> Any:
    """A choice as Optuna's categories hold it: lists become JSON text."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _suggest(trial: optuna.Trial, hole: Hole) -> Any:
    if hole.choices:
        encoded = [encode(choice) for choice in hole.choices]
        return hole.choices[encoded.index(trial.suggest_categorical(hole.address, encoded))]
    if hole.kind == "int":
        step = int(hole.step or 1)
        return trial.suggest_int(hole.address, int(hole.low), int(hole.high), step=step)
    return trial.suggest_float(
        hole.address, hole.low, hole.high, step=hole.step, log=hole.kind == "log"
    )


def _trial_seed(search_seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{search_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
