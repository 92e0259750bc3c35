"""A search space: the config's tree with holes, checked as a whole.

`load_space` is the door: file, overrides, holes, schema, cross-checks, all problems at once.
"""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fer_ray.config.holes import Branches, Hole, Reading, fill, iterate_holes, read_tree
from fer_ray.config.overrides import apply_override
from fer_ray.config.schema import Config
from fer_ray.config.validate import schema_problems
from fer_ray.config.yaml_file import Address, Document, parse_document, read_document
from fer_ray.errors import ConfigError, Problem, UserError

NUM_RANDOM_CHECKS = 50
"""Random configs validated at load, to catch rules that only a combination breaks."""


@dataclass(frozen=True)
class SearchSpace:
    """A checked space.

    Attributes:
        tree: nodes of `fer_ray.config.holes`.
        text: the file as given, before overrides.
    """

    tree: Any
    text: str

    @cached_property
    def holes(self) -> tuple[Hole, ...]:
        """All holes in the order of the file."""
        return tuple(iterate_holes(self.tree))

    @cached_property
    def base(self) -> Config:
        """The config of trial 0: every hole at its default."""
        return self.resolve({})

    def resolve(self, params: Mapping[str, Any]) -> Config:
        """Fill the holes; those that `params` leaves out take their default.

        Raises:
            ConfigError: the combination breaks a rule of the schema.
        """
        filled = self.fill(params)
        problems = schema_problems(filled, None)
        if problems:
            raise ConfigError(problems)
        return Config.model_validate(filled)

    def fill(self, params: Mapping[str, Any]) -> Any:
        """The plain tree with `params` in place, not validated."""
        return fill(self.tree, lambda hole: params.get(hole.address, hole.default))

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The active holes of a point with their values, defaults included."""
        return self.draw(lambda hole: params.get(hole.address, hole.default))

    def draw(self, choose: Callable[[Hole], Any]) -> dict[str, Any]:
        """Ask `choose` for every hole that is reached, in the order of the file.

        Returns:
            address -> value of the active holes.
        """
        params: dict[str, Any] = {}

        def record(hole: Hole) -> Any:
            params[hole.address] = choose(hole)
            return params[hole.address]

        fill(self.tree, record)
        return params

    def grid(self) -> Iterator[dict[str, Any]]:
        """All points of a finite space, in the order of the file.

        Raises:
            UserError: a hole has infinitely many values.
        """
        for hole in self.holes:
            if hole.values() is None:
                raise UserError(
                    f"sampler: grid needs finitely many values, but {hole.address} is "
                    f"{hole.describe()}",
                    "Give it a step, make it a choice, or use sampler: tpe.",
                )
        yield from _grid(self.tree)

    def check_point(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a partial point such as one of `search.start_from`.

        Raises:
            UserError: an address that is no hole, or a value outside its domain.
        """
        by_address = {hole.address: hole for hole in self.holes}
        for address, value in point.items():
            if address not in by_address:
                raise UserError(f"{address} is not searched here{_nearest(address, by_address)}")
            hole = by_address[address]
            frozen = tuple(value) if isinstance(value, list) else value
            if not hole.contains(frozen):
                raise UserError(f"{address}: {value!r} is outside {hole.describe()}")
        frozen_point = {k: tuple(v) if isinstance(v, list) else v for k, v in point.items()}
        params = self.complete(frozen_point)
        idle = [address for address in point if address not in params]
        if idle:
            raise UserError(f"{idle[0]} does nothing in a point that chooses another branch")
        return params

    def is_forbidden(self, params: Mapping[str, Any]) -> bool:
        """Whether a `forbid` entry holds entirely."""
        values = flatten(self.fill(params))
        return any(
            all(values.get(address, _MISSING) == value for address, value in entry.items())
            for entry in self.base.forbid
        )


_MISSING = object()


def flatten(tree: Any, address: str = "") -> dict[str, Any]:
    """Plain tree to address -> value; a section with one branch also maps to the branch's name."""
    if not isinstance(tree, dict):
        return {address: tree}
    values: dict[str, Any] = {}
    if address in ("model", "train.optimizer", "train.schedule") and len(tree) == 1:
        values[address] = next(iter(tree))
    for key, child in tree.items():
        values.update(flatten(child, f"{address}.{key}" if address else str(key)))
    return values


def load_space(path: Path, overrides: Sequence[str] = ()) -> SearchSpace:
    """Read and check a space.

    Raises:
        UserError: the file cannot be read.
        ConfigError: everything that is wrong with it, at once.
    """
    return space_of(read_document(path), overrides)


def parse_space(text: str, place: str, overrides: Sequence[str] = ()) -> SearchSpace:
    """`load_space` for text that is already at hand."""
    return space_of(parse_document(text, place), overrides)


def space_of(document: Document, overrides: Sequence[str]) -> SearchSpace:
    """Apply overrides, read holes, check everything."""
    problems = [problem for text in overrides if (problem := apply_override(document, text))]
    reading = Reading(document)
    tree = read_tree(reading)
    problems += reading.problems
    if problems:
        raise ConfigError(problems)
    space = SearchSpace(tree, "\n".join(document.lines) + "\n")
    for points in (_extreme_points(space), _random_points(space)):
        if not problems:
            problems = _problems_of(space, points, reading)
    if not problems:
        problems = _cross_checks(space, reading)
    if problems:
        raise ConfigError(sorted(problems, key=lambda p: (p.line, p.column)))
    return space


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config without holes.

    Raises:
        ConfigError: what is wrong, or the holes it still has.
    """
    document = read_document(path)
    space = space_of(document, overrides)
    if space.holes:
        raise ConfigError(
            [
                Problem(
                    document.place,
                    0,
                    0,
                    f"{hole.address} is a hole ({hole.describe()}); `fer-ray train` wants one "
                    f"value: -s {hole.address}={hole.default}",
                )
                for hole in space.holes
            ]
        )
    return space.base


def _problems_of(
    space: SearchSpace, points: Iterator[dict[str, Any]], reading: Reading
) -> list[Problem]:
    found = (problem for p in points for problem in schema_problems(space.fill(p), reading))
    return list(dict.fromkeys(found))


def _extreme_points(space: SearchSpace) -> Iterator[dict[str, Any]]:
    yield {}
    for hole in space.holes:
        for value in hole.extremes():
            yield {**dict(hole.when), hole.address: value}


def _random_points(space: SearchSpace) -> Iterator[dict[str, Any]]:
    generator = random.Random(0)
    for _ in range(NUM_RANDOM_CHECKS if space.holes else 0):
        yield space.draw(lambda hole: random_value(hole, generator))


def random_value(hole: Hole, generator: random.Random) -> Any:
    """One value of a hole, uniform in its own measure."""
    values = hole.values()
    if values is not None:
        return generator.choice(values)
    if hole.kind == "log":
        exponent = generator.random()
        value = hole.low * (hole.high / hole.low) ** exponent
        return min(max(value, hole.low), hole.high)
    return generator.uniform(hole.low, hole.high)


def _cross_checks(space: SearchSpace, reading: Reading) -> list[Problem]:
    problems = []
    config = space.base
    known = {hole.address for hole in space.holes}
    for hole in space.holes:
        if hole.kind == "one_of":
            for branch in hole.choices:
                known |= set(flatten(space.fill({**dict(hole.when), hole.address: branch})))
    known |= set(flatten(space.fill({})))
    for position, entry in enumerate(config.forbid):
        for address in entry:
            if address not in known:
                message = f"forbid names {address}, which this space has not"
                raw = ("forbid", position, address)
                problems.append(reading.document.problem(raw, message + _nearest(address, known)))
    problems += _one_cycle_under_asha(space, reading)
    if isinstance(config.search.start_from, tuple):
        for position, point in enumerate(config.search.start_from):
            try:
                space.check_point(point)
            except UserError as error:
                at: Address = ("search", "start_from", position)
                problems.append(reading.document.problem(at, error.message))
    if config.search.sampler == "grid":
        try:
            next(space.grid(), None)
        except UserError as error:
            problems.append(reading.document.problem(("search", "sampler"), str(error)))
    if not problems and space.is_forbidden({}):
        problems.append(
            reading.document.problem(("forbid",), "the defaults themselves are forbidden")
        )
    return problems


def _one_cycle_under_asha(space: SearchSpace, reading: Reading) -> list[Problem]:
    """A one-cycle rate peaks in mid-training: epochs before it say nothing of the end."""
    base = space.base
    branches: tuple[Any, ...] = next(
        (hole.choices for hole in space.holes if hole.address == "train.schedule"),
        (base.train.schedule.branch,),
    )
    if base.scheduler == "none" or "onecycle" not in branches or not space.holes:
        return []
    place = ("train", "schedule", "one_of", "onecycle")
    message = (
        "schedule: onecycle and ASHA do not go together: the rate peaks in mid-training, and what "
        "a rung sees before says nothing of the end; use scheduler: none, or another schedule"
    )
    return [reading.document.problem(place, message)]


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, [str(name) for name in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _grid(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, Hole):
        for value in node.values() or ():
            yield {node.address: value}
    elif isinstance(node, Branches):
        for branch, tree in node.trees.items():
            for params in _grid(tree):
                yield {node.hole.address: branch, **params}
    elif isinstance(node, dict):
        for parts in itertools.product(*(list(_grid(child)) for child in node.values())):
            yield {address: value for part in parts for address, value in part.items()}
    else:
        yield {}
