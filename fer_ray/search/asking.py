"""Where a search's configurations come from: fixed points, a grid, repeats, or Optuna's sampler.

Optuna samples on a copy of the study in memory. That copy knows every trial, those that were
rejected included; what outlives the process is the business of `fer_ray.search.study`.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace
from fer_ray.errors import FerRayError
from fer_ray.search.live import Asked
from fer_ray.search.points import grid_points, rejection
from fer_ray.search.sampling import (
    BoundedStudy,
    decode,
    derived_seed,
    distribution_of,
    encode,
    make_sampler,
    reseed,
    same_point,
    suggest,
)

_MAX_REJECTED = 200
"""Asked configurations in a row that may be forbidden or above the limits."""

Point = tuple[dict[str, Any], str, int | None]
"""Params, origin, and the trial that they repeat."""


class Asker:
    """The sampler, its copy of the study, and the points that come before it.

    Args:
        space: checked.
        start_points: of the run that `search.start_from` names.
    """

    def __init__(self, space: SearchSpace, start_points: Sequence[Mapping[str, Any]]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        base = space.base
        self._space = space
        self._start_points = start_points
        self._by_address = {hole.address: hole for hole in space.holes}
        self._memory = InMemoryStorage()
        self._sampler = make_sampler(base)
        direction = StudyDirection[base.objective.goal.upper()]
        self._memory_study = self._memory.create_new_study([direction], base.name)
        self._optuna = BoundedStudy(base.name, self._memory, sampler=self._sampler)
        self._fixed: deque[Point] = deque()

    # --- what is known already --------------------------------------------------------------------

    def take_in(self, frozen: FrozenTrial) -> None:
        """A trial of an earlier session."""
        self._memory.create_new_trial(self._memory_study, template_trial=frozen)

    def asked(self, frozen: FrozenTrial) -> Asked:
        """What was asked for in a trial of an earlier session."""
        noted = frozen.user_attrs
        params = {a: decode(self._by_address[a], v) for a, v in frozen.params.items()}
        return Asked(
            number=frozen.number,
            params=params,
            config=self._config(frozen.number, params),
            origin=noted["origin"],
            repeat_of=noted.get("repeat_of"),
            asked=noted["asked"],
            ask_s=noted["ask_s"],
        )

    def expect(self, known: Collection[Asked]) -> None:
        """Queue the fixed points that are not among the known trials."""
        self._fixed = deque(self._points_to_come(known))

    def _points_to_come(self, known: Collection[Asked]) -> Iterator[Point]:
        """Defaults, `start_from`, the grid, repeats."""
        for params, origin in self._fixed_points():
            if not any(same_point(params, other.params) for other in known):
                yield params, origin, None
        repeat = self._space.base.search.repeat
        for first in known:
            if first.repeat_of is None:
                repeats = sum(other.repeat_of == first.number for other in known)
                yield from [(first.params, "repeat", first.number)] * (repeat - 1 - repeats)

    def _fixed_points(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Trial 0 is the defaults; then `start_from`, or the grid."""
        search = self._space.base.search
        yield self._space.complete({}), "defaults"
        named = isinstance(search.start_from, str)
        for point in self._start_points if named else search.start_from:
            assert not isinstance(point, str)
            yield self._space.check_point(point), "start_from"
        if search.sampler == "grid":
            for params in grid_points(self._space)[1:]:
                yield params, "grid"

    # --- asking -----------------------------------------------------------------------------------

    def ask(self) -> tuple[Asked, list[int]]:
        """The next configuration that is neither forbidden nor above the limits.

        Returns:
            it, and the numbers of those that were rejected before it.

        Raises:
            FerRayError: hardly any configuration of this space is allowed.
        """
        rejected: list[int] = []
        while len(rejected) < _MAX_REJECTED:
            asked, clock = time.time(), time.perf_counter()
            trial_id, params, origin, repeat_of = self._next_point()
            number = self._memory.get_trial_number_from_id(trial_id)
            why = rejection(self._space, params)
            if why is not None:
                self._reject(number, why)
                rejected.append(number)
                continue
            config = self._config(number, params)
            ask_s = time.perf_counter() - clock
            if repeat_of is None and origin != "repeat":
                repeats = self._space.base.search.repeat - 1
                self._fixed.extendleft([(params, "repeat", number)] * repeats)
            return Asked(number, params, config, origin, repeat_of, asked, ask_s), rejected
        raise FerRayError(
            f"{_MAX_REJECTED} sampled configurations in a row are forbidden or above the limits",
            "Widen `limits` or `forbid`, or narrow the ranges that break them.",
        )

    def _next_point(self) -> tuple[int, dict[str, Any], str, int | None]:
        """Optuna's id of a new trial in memory, and its point."""
        if self._fixed:
            params, origin, repeat_of = self._fixed.popleft()
            holes = {address: self._by_address[address] for address in params}
            template = create_trial(
                state=TrialState.RUNNING,
                params={a: encode(holes[a], value) for a, value in params.items()},
                distributions={a: distribution_of(hole) for a, hole in holes.items()},
            )
            trial_id = self._memory.create_new_trial(self._memory_study, template_trial=template)
            return trial_id, params, origin, repeat_of
        number = self._memory.get_n_trials(self._memory_study)
        reseed(self._sampler, self._space.base.search.seed, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._optuna.look()
            trial = self._optuna.ask()
            params = self._space.draw(functools.partial(suggest, trial))
        return trial._trial_id, params, "sampler", None

    def _reject(self, number: int, why: str) -> None:
        trial_id = self._id(number)
        # Optuna: a constraint above 0 is infeasible.
        self._memory.set_trial_system_attr(trial_id, "constraints:allowed", 1.0)
        self._memory.set_trial_user_attr(trial_id, "ended", why)
        self._memory.set_trial_user_attr(trial_id, "rejected", True)
        self._optuna.tell(number, state=TrialState.FAIL)

    def _config(self, number: int, params: Mapping[str, Any]) -> Config:
        seed = derived_seed(self._space.base.search.seed, number)
        config = self._space.resolve(params)
        train = config.train.model_copy(update={"seed": seed})
        return config.model_copy(update={"train": train})

    # --- telling ----------------------------------------------------------------------------------

    def report(self, number: int, step: int, value: float) -> None:
        """What a trial has reached after an epoch."""
        self._memory.set_trial_intermediate_value(self._id(number), step, value)

    def tell(self, number: int, value: float | None, state: TrialState) -> None:
        """How a trial ended."""
        self._optuna.tell(number, value, state=state)

    def frozen(self, number: int) -> FrozenTrial:
        """A trial as Optuna sees it."""
        return self._memory.get_trial(self._id(number))

    @property
    def frozen_trials(self) -> list[FrozenTrial]:
        """Optuna's own view, what was asked ahead included."""
        return self._memory.get_all_trials(self._memory_study, deepcopy=False)

    def _id(self, number: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(self._memory_study, number)
