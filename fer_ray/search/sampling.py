"""From holes to Optuna's distributions and back, and the samplers.

What is sampled for a trial follows from the search's seed, the trial's number and the trials before
it, not from how often the search was interrupted: each question has a random stream of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Container
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fer_ray.config.holes import Hole
from fer_ray.config.schema import Config

_MODELLED = (TrialState.COMPLETE, TrialState.PRUNED)
_MAX_SHOWN_BEST = 100
_MAX_SHOWN = 400
"""Finished trials that a sampler looks at; the best of them, and an even choice of the others."""


class BoundedStudy(optuna.Study):
    """A study that shows its sampler at most so many finished trials, and all that are running.

    Optuna's TPE walks over every trial it knows some twenty times a question: 90 ms at the median
    of 2,000 trials, during which the driver hears nobody (LOG.md). It models its best 25 and, as
    one density, all the others, of which an even choice is shown. What is shown follows from the
    trials alone, not from how often the search was interrupted. Up to `_MAX_SHOWN` trials nothing
    is left out but those that were rejected, which TPE does not model either.

    `look` chooses, once a question; the trials are Optuna's own, not copies.
    """

    def __init__(self, name: str, storage: BaseStorage, sampler: BaseSampler | None = None) -> None:
        super().__init__(name, storage, sampler=sampler)
        self._goodness: dict[int, tuple[int, int, float]] = {}
        self.look()

    def look(self) -> None:
        """Take in what has happened since the last question."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        finished = [trial for trial in trials if trial.state in _MODELLED]
        if len(finished) > _MAX_SHOWN:
            sign = 1 if self.direction == StudyDirection.MAXIMIZE else -1
            for trial in finished:
                if trial.number not in self._goodness:
                    self._goodness[trial.number] = _goodness(trial, sign)
            finished.sort(key=lambda trial: self._goodness[trial.number], reverse=True)
            others = sorted(finished[_MAX_SHOWN_BEST:], key=_shuffled)
            finished = finished[:_MAX_SHOWN_BEST] + others[: _MAX_SHOWN - _MAX_SHOWN_BEST]
        running = [trial for trial in trials if not trial.state.is_finished()]
        self._shown = sorted([*finished, *running], key=lambda trial: trial.number)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]


def _goodness(trial: FrozenTrial, sign: int) -> tuple[int, int, float]:
    """TPE's own order: complete trials, then pruned ones by the epoch that they reached."""
    if trial.state == TrialState.COMPLETE:
        return 1, 0, sign * float(trial.value or 0.0)
    step, value = max(trial.intermediate_values.items(), default=(0, math.nan))
    return 0, step, -math.inf if math.isnan(value) else sign * value


def _shuffled(trial: FrozenTrial) -> int:
    """Knuth's multiplicative hash: any first part of this order lies evenly over the numbers."""
    return trial.number * 2654435761 % 2**32


def make_sampler(base: Config) -> BaseSampler:
    """The sampler that a config asks for; a grid needs none and gets a random one.

    TPE: Bergstra et al. 2011, with joint densities a group of holes that occur together
    (Falkner et al. 2018), and trials under way counted as bad ones (Ginsbourger et al. 2010).
    """
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


def reseed(sampler: BaseSampler, search_seed: int, number: int) -> None:
    """Start the random stream of one trial's question.

    Optuna's own `reseed_rng` draws a seed from the clock, so its generators are seeded directly.
    """
    seed = derived_seed(search_seed, f"sampler/{number}")
    if isinstance(sampler, TPESampler):
        sampler._random_sampler._rng.rng.seed(seed)
    assert isinstance(sampler, TPESampler | RandomSampler)
    sampler._rng.rng.seed(seed)


def derived_seed(search_seed: int, what: object) -> int:
    """An independent 32-bit seed for each use."""
    digest = hashlib.sha256(f"{search_seed}/{what}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def distribution_of(hole: Hole) -> BaseDistribution:
    """How Optuna holds a hole."""
    if hole.choices:
        return CategoricalDistribution(encoded_choices(hole))
    if hole.kind == "int":
        return IntDistribution(int(hole.low), int(hole.high), step=int(hole.step or 1))
    return FloatDistribution(hole.low, hole.high, step=hole.step, log=hole.kind == "log")


def encoded_choices(hole: Hole) -> list[Any]:
    """Choices as Optuna's categories hold them.

    Lists become JSON text. Optuna tells categories apart by `==`, for which false is 0 and 1.0 is
    1; where two choices are equal in that sense, all become JSON text.
    """
    encoded = [
        json.dumps(choice) if isinstance(choice, tuple) else choice for choice in hole.choices
    ]
    pairs = itertools.combinations(encoded, 2)
    if any(one == other for one, other in pairs):
        return [json.dumps(choice) for choice in hole.choices]
    return encoded


def encode(hole: Hole, value: Any) -> Any:
    """One value of a hole, for Optuna."""
    if not hole.choices:
        return value
    return encoded_choices(hole)[_position(hole, value)]


def decode(hole: Hole, value: Any) -> Any:
    """One value of Optuna's, for the hole."""
    if not hole.choices:
        return int(value) if hole.kind == "int" else value
    return hole.choices[encoded_choices(hole).index(value)]


def _position(hole: Hole, value: Any) -> int:
    same = (value == choice and type(value) is type(choice) for choice in hole.choices)
    return list(same).index(True)


def suggest(trial: optuna.Trial, hole: Hole) -> Any:
    """Let the sampler choose a value of a hole."""
    if hole.choices:
        return decode(hole, trial.suggest_categorical(hole.address, encoded_choices(hole)))
    if hole.kind == "int":
        step = int(hole.step or 1)
        return trial.suggest_int(hole.address, int(hole.low), int(hole.high), step=step)
    return trial.suggest_float(
        hole.address, hole.low, hole.high, step=hole.step, log=hole.kind == "log"
    )


def same_point(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two points are one: false is not 0 here."""
    return one == other and all(type(one[key]) is type(other[key]) for key in one)
