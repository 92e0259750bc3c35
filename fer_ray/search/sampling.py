"""From holes to Optuna's distributions and back, and the samplers.

What is sampled for a trial follows from the search's seed, the trial's number and the trials before
it, not from how often the search was interrupted: each question has a random stream of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
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

from fer_ray.config.holes import Hole
from fer_ray.config.schema import Config


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
