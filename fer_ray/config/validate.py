"""The schema's own errors, turned into problems that point at the file and name the remedy."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fer_ray.config.holes import Reading
from fer_ray.config.schema import Config
from fer_ray.config.sections.base import Section
from fer_ray.errors import Problem


def schema_problems(tree: Any, reading: Reading | None) -> list[Problem]:
    """Validate a plain tree.

    Args:
        tree: without holes.
        reading: where its addresses stand in the file; None to name addresses only.
    """
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        # What is said of one value is one problem; each missing key is one of its own.
        groups: dict[tuple[Any, ...], list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            missing = detail["loc"] if detail["type"] == "missing" else ()
            groups.setdefault((_address_in(tree, detail["loc"]), missing), []).append(detail)
        return [_problem(address, details, reading) for (address, _), details in groups.items()]
    return []


def _address_in(tree: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of a pydantic location that exists in the tree (it also names union members)."""
    address: tuple[str | int, ...] = ()
    node = tree
    for part in loc:
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            continue
        address = (*address, part)
    return address


def _problem(
    address: tuple[str | int, ...], details: list[ErrorDetails], reading: Reading | None
) -> Problem:
    message = " or ".join(dict.fromkeys(_message(address, detail) for detail in details))
    if reading is None:
        return Problem("config", 0, 0, message)
    place = address
    while place not in reading.places and place:
        place = place[:-1]
    return reading.document.problem(reading.places.get(place, ()), message)


def _message(address: tuple[str | int, ...], detail: ErrorDetails) -> str:
    dotted = ".".join(map(str, address))
    kind, text = detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        parent, key = ".".join(map(str, address[:-1])), str(address[-1])
        known = known_keys(address[:-1])
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        return f"unknown key {key!r}{' in ' + parent if parent else ''} ({hint})"
    if kind == "missing":
        return f"{'.'.join(str(part) for part in detail['loc'])} is missing"
    if kind == "value_error":
        text = text.removeprefix("Value error, ")
        return f"{dotted}: {text}" if dotted else text
    text = text.replace("Input should be", "must be").replace(
        "a valid dictionary or instance of", "a mapping with the keys of"
    )
    return f"{dotted}: {text}, but got {detail['input']!r}"


def known_keys(address: tuple[str | int, ...]) -> list[str]:
    """Keys that the schema allows at an address."""
    section: type[Section] = Config
    for part in address:
        found = None
        if isinstance(part, str) and part in section.model_fields:
            found = _section_in(section.model_fields[part].annotation)
        if found is None:
            return []
        section = found
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for member in get_args(annotation):
        found = _section_in(member)
        if found is not None:
            return found
    return None
