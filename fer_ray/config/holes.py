"""Holes: the five reserved words of a search space, read from YAML into typed nodes.

    {int: [low, high], step: 2, default: 4}      whole numbers, bounds included
    {float: [low, high], step: 0.1}              real numbers, bounds included
    {log: [low, high]}                           real numbers, uniform in the logarithm
    {choice: [a, b, c]}                          plain values
    {one_of: {branch: {...}, branch: {...}}}     alternatives that may hold holes of their own

An address is the dotted path without the word `one_of`: `train.optimizer.sgd.lr`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fer_ray.config.yaml_file import Address, Document
from fer_ray.errors import Problem

WORDS = ("int", "float", "log", "choice", "one_of")
DATA_HOLES = {"image_size", "crop", "equalize"}
FIXED_TRAIN = {"epochs", "seed", "device", "precision"}

_LARGEST = 1e300
"""Bounds and steps lie below: neither infinite, nor whole numbers that no float can hold."""


@dataclass(frozen=True)
class Hole:
    """One searched value.

    Attributes:
        address: dotted, without `one_of`.
        kind: its reserved word.
        low, high: bounds of a range, included.
        step: of a range, or None.
        choices: options of a `choice`, branch names of a `one_of`.
        default: what trial 0 uses.
        when: (address of a `one_of`, branch) pairs that must hold, outermost first.
    """

    address: str
    kind: Literal["int", "float", "log", "choice", "one_of"]
    default: Any
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, str], ...] = ()

    def extremes(self) -> tuple[Any, ...]:
        """Values that a check must try: both bounds, or every choice."""
        return self.choices if self.choices else (self.low, self.high)

    def values(self) -> tuple[Any, ...] | None:
        """All values, or None where there are infinitely many."""
        if self.choices:
            return self.choices
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        values = (self.low + index * self.step for index in range(count))
        return tuple(int(v) if self.kind == "int" else round(v, 12) for v in values)

    def contains(self, value: Any) -> bool:
        """Whether the hole could take this value."""
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind == "int" and not isinstance(value, int):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-6

    def describe(self) -> str:
        """The domain, as a person reads it."""
        if self.choices:
            return " | ".join(_short(choice) for choice in self.choices)
        text = f"{_short(self.low)} to {_short(self.high)}"
        if self.kind == "log":
            text += ", log"
        if self.step is not None and not (self.kind == "int" and self.step == 1):
            text += f", step {_short(self.step)}"
        return text


@dataclass(frozen=True)
class Branches:
    """A `one_of`: its hole, and the tree under each branch."""

    hole: Hole
    trees: dict[str, Any]


@dataclass
class Reading:
    """What a walk over the raw tree collects.

    Attributes:
        document: the file.
        problems: faults of the holes themselves.
        places: concrete address -> raw address (with `one_of`), to point at the file.
    """

    document: Document
    problems: list[Problem] = field(default_factory=list)
    places: dict[Address, Address] = field(default_factory=dict)

    def fault(self, raw: Address, message: str) -> None:
        self.problems.append(self.document.problem(raw, message))


def read_tree(reading: Reading) -> Any:
    """Turn the document's tree into nodes: dicts, plain values, `Hole` and `Branches`."""
    return _read(reading, reading.document.tree, (), (), ())


def _read(
    reading: Reading,
    raw_node: Any,
    raw: Address,
    address: Address,
    when: tuple[tuple[str, str], ...],
) -> Any:
    reading.places[address] = raw
    searchable = bool(address) and address[0] in ("data", "model", "augment", "train")
    if isinstance(raw_node, dict):
        words = [word for word in WORDS if word in raw_node]
        if words and searchable:
            return _read_hole(reading, raw_node, words, raw, address, when)
        return {
            key: _read(reading, value, (*raw, key), (*address, key), when)
            for key, value in raw_node.items()
        }
    if isinstance(raw_node, list):
        for position in range(len(raw_node)):
            reading.places[(*address, position)] = (*raw, position)
    return raw_node


def _read_hole(
    reading: Reading,
    node: dict[str, Any],
    words: list[str],
    raw: Address,
    address: Address,
    when: tuple[tuple[str, str], ...],
) -> Any:
    word = words[0]
    dotted = ".".join(map(str, address))
    if len(words) > 1:
        reading.fault((*raw, words[1]), f"a hole has one of {', '.join(words)}, not both")
        return None
    if not _may_have_hole(address):
        reading.fault(
            raw,
            f"{dotted} cannot be searched; holes stand in model, augment, train (not "
            f"{', '.join(sorted(FIXED_TRAIN))}) and data.{{{', '.join(sorted(DATA_HOLES))}}}",
        )
        return None
    allowed = {word, "default"} | ({"step"} if word in ("int", "float") else set())
    for key in node:
        if key not in allowed:
            hint = "; the branches stand under one_of" if word == "one_of" else ""
            reading.fault(
                (*raw, key), f"unknown key {key!r} beside {word} (allowed: default, step){hint}"
            )
            return None
    if word == "one_of":
        return _read_one_of(reading, node, raw, address, when)
    hole = _choice(node, dotted, when) if word == "choice" else _range(node, word, dotted, when)
    if isinstance(hole, str):
        reading.fault((*raw, word), hole)
        return None
    if not hole.contains(hole.default):
        reading.fault((*raw, "default"), f"default {hole.default!r} is outside {hole.describe()}")
        return None
    return hole


def _may_have_hole(address: Address) -> bool:
    if address[0] == "data":
        return len(address) == 2 and address[1] in DATA_HOLES
    if address[0] == "train":
        return len(address) >= 2 and address[1] not in FIXED_TRAIN
    return True


def _choice(node: dict[str, Any], address: str, when: tuple[tuple[str, str], ...]) -> Hole | str:
    options = node["choice"]
    if not isinstance(options, list) or not options:
        return f"choice wants a list of values, but got {options!r}"
    frozen = tuple(tuple(o) if isinstance(o, list) else o for o in options)
    if any(isinstance(option, dict) for option in frozen):
        return "choice wants plain values; alternatives with keys of their own are a one_of"
    if len({repr(option) for option in frozen}) < len(frozen):
        return f"choice lists a value twice: {options!r}"
    default = node.get("default", frozen[0])
    default = tuple(default) if isinstance(default, list) else default
    return Hole(address, "choice", default, choices=frozen, when=when)


def _range(
    node: dict[str, Any], word: str, address: str, when: tuple[tuple[str, str], ...]
) -> Hole | str:
    bounds = node[word]
    kinds = (int,) if word == "int" else (int, float)
    if (
        not isinstance(bounds, list)
        or len(bounds) != 2
        or any(isinstance(b, bool) or not isinstance(b, kinds) for b in bounds)
    ):
        what = "whole numbers" if word == "int" else "numbers"
        return f"{word} wants [low, high], two {what}, but got {bounds!r}"
    low, high = bounds
    if not (-_LARGEST < low < high < _LARGEST):
        return f"low < high must hold, but got (low={low}, high={high})"
    if word == "log" and low <= 0:
        return f"log wants low above 0, but got {low}"
    step = node.get("step", 1 if word == "int" else None)
    if step is not None:
        if isinstance(step, bool) or not isinstance(step, kinds) or not 0 < step < _LARGEST:
            return f"step wants a number above 0, but got {step!r}"
        if abs((high - low) / step - round((high - low) / step)) > 1e-6:
            return (
                f"high must be low plus whole steps, but got (low={low}, high={high}, step={step})"
            )
    if word != "int":
        low, high = float(low), float(high)
    default = node.get("default", _middle(word, low, high, step))
    if word != "int" and isinstance(default, int) and not isinstance(default, bool):
        default = float(default)
    return Hole(
        address,
        word,  # type: ignore[arg-type]
        default,
        low=low,
        high=high,
        step=step,
        when=when,
    )


def _middle(word: str, low: float, high: float, step: float | None) -> float:
    if word == "log":
        return float(f"{math.sqrt(low * high):.3g}")
    middle = (low + high) / 2
    if step is not None:
        middle = low + math.floor((middle - low) / step + 1e-9) * step
    return int(middle) if word == "int" else round(middle, 12)


def _read_one_of(
    reading: Reading,
    node: dict[str, Any],
    raw: Address,
    address: Address,
    when: tuple[tuple[str, str], ...],
) -> Any:
    dotted = ".".join(map(str, address))
    branches = node["one_of"]
    if not isinstance(branches, dict) or not branches:
        reading.fault((*raw, "one_of"), f"one_of wants named branches, but got {branches!r}")
        return None
    default = node.get("default", next(iter(branches)))
    if not isinstance(default, str) or default not in branches:
        reading.fault((*raw, "default"), f"default {default!r} is none of {', '.join(branches)}")
        return None
    trees = {
        name: _read(
            reading,
            {} if tree is None else tree,
            (*raw, "one_of", name),
            (*address, name),
            (*when, (dotted, name)),
        )
        for name, tree in branches.items()
    }
    return Branches(Hole(dotted, "one_of", default, choices=tuple(branches), when=when), trees)


def iterate_holes(node: Any) -> Iterator[Hole]:
    """All holes in the order of the file, whatever branch they stand in."""
    if isinstance(node, Hole):
        yield node
    elif isinstance(node, Branches):
        yield node.hole
        for tree in node.trees.values():
            yield from iterate_holes(tree)
    elif isinstance(node, dict):
        for child in node.values():
            yield from iterate_holes(child)


def fill(node: Any, value_of: Callable[[Hole], Any]) -> Any:
    """Replace every hole that is reached by its value; other branches are not visited."""
    if isinstance(node, Hole):
        value = value_of(node)
        return list(value) if isinstance(value, tuple) else value
    if isinstance(node, Branches):
        branch = value_of(node.hole)
        return {branch: fill(node.trees[branch], value_of)}
    if isinstance(node, dict):
        return {key: fill(child, value_of) for key, child in node.items()}
    return node


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return str(list(value))
    return "none" if value is None else str(value)
