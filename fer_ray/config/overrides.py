"""`-s address=value`: change one leaf of a file from the command line."""

from __future__ import annotations

from typing import Any

from fer_ray.config.yaml_file import Address, Document, parse_value
from fer_ray.errors import Problem


def apply_override(document: Document, text: str) -> Problem | None:
    """Write one override into the document's raw tree.

    The address skips the word `one_of`; naming a branch (`model=resnet`) keeps only that branch.

    Returns:
        what is wrong with the override, or None.
    """
    place = f"-s {text}"
    key, equals, value_text = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return Problem(place, 0, 0, "an override reads address=value, e.g. train.epochs=10")
    try:
        value = parse_value(value_text)
    except ValueError as error:
        return Problem(place, 0, 0, str(error))
    node: dict[str, Any] = document.tree
    raw: Address = ()
    for part in parts[:-1]:
        if isinstance(node.get("one_of"), dict) and part in node["one_of"]:
            node, raw = node["one_of"], (*raw, "one_of")
        child = node.get(part)
        if child is None:
            child = node[part] = {}
            document.origins[(*raw, part)] = place
        if not isinstance(child, dict):
            return Problem(place, 0, 0, f"{part} is a value, it has nothing under it")
        node, raw = child, (*raw, part)
    last = parts[-1]
    old = node.get(last)
    if isinstance(old, dict) and isinstance(value, str) and isinstance(old.get("one_of"), dict):
        return _choose_branch(document, node, (*raw, last), value, place)
    if isinstance(node.get("one_of"), dict) and last in node["one_of"]:
        node, raw = node["one_of"], (*raw, "one_of")
    node[last] = value
    document.origins[(*raw, last)] = place
    return None


def _choose_branch(
    document: Document, parent: dict[str, Any], raw: Address, branch: str, place: str
) -> Problem | None:
    name = str(raw[-1])
    branches = parent[name]["one_of"]
    if branch not in branches:
        return Problem(place, 0, 0, f"{name} has no branch {branch!r}: {', '.join(branches)}")
    parent[name] = {branch: branches[branch] if branches[branch] is not None else {}}
    prefix = (*raw, "one_of", branch)
    for places in (document.marks, document.origins):
        moved = {
            (*raw, branch, *old[len(prefix) :]): place_of
            for old, place_of in places.items()
            if old[: len(prefix)] == prefix
        }
        places.update(moved)  # type: ignore[arg-type]
    return None
