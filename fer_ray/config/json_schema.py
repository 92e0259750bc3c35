"""JSON Schema of a search space, for editors: the config's own schema with holes let in."""

from __future__ import annotations

from typing import Any

from fer_ray.config.holes import DATA_HOLES, FIXED_TRAIN
from fer_ray.config.schema import Config
from fer_ray.config.sections.base import OneOf, Section

_RANGE = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_HOLES: dict[str, dict[str, Any]] = {
    "int": {**_RANGE, "items": {"type": "integer"}, "description": "[low, high], included"},
    "float": {**_RANGE, "description": "[low, high], included"},
    "log": {**_RANGE, "description": "[low, high], uniform in the logarithm"},
    "choice": {"type": "array", "minItems": 1, "description": "plain values"},
}


def space_schema() -> dict[str, Any]:
    """The schema: draft 2020-12, with `$defs` for every section."""
    schema = Config.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    searched = _reachable(definitions)
    for section in _sections():
        if section.__name__ not in searched:
            continue
        definition = definitions[section.__name__]
        if issubclass(section, OneOf):
            definitions[section.__name__] = _with_one_of(definition)
            continue
        for name, leaf in definition["properties"].items():
            if _may_be_searched(section.__name__, name) and "$ref" not in leaf:
                definition["properties"][name] = _with_holes(leaf)
    for word, form in _HOLES.items():
        properties: dict[str, Any] = {word: form, "default": {}}
        if word in ("int", "float"):
            properties["step"] = {"type": "number", "exclusiveMinimum": 0}
        definitions[f"hole_{word}"] = {
            "type": "object",
            "properties": properties,
            "required": [word],
            "additionalProperties": False,
        }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "fer-ray search space"
    return schema


def _reachable(definitions: dict[str, Any]) -> set[str]:
    """Definitions below the four sections in which holes may stand."""
    waiting = ["DataConfig", "ModelConfig", "AugmentConfig", "TrainConfig"]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(definitions[name])
    return found


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [str(node["$ref"]).rsplit("/", 1)[-1]] if "$ref" in node else []
        return here + [name for child in node.values() for name in _references(child)]
    if isinstance(node, list):
        return [name for child in node for name in _references(child)]
    return []


def _sections() -> list[type[Section]]:
    """Every section of the config."""
    found: list[type[Section]] = []
    waiting: list[type[Section]] = [Section]
    while waiting:
        for section in waiting.pop().__subclasses__():
            found.append(section)
            waiting.append(section)
    return found


def _may_be_searched(section: str, name: str) -> bool:
    if section == "DataConfig":
        return name in DATA_HOLES
    if section == "TrainConfig":
        return name not in FIXED_TRAIN
    return True


def _with_holes(leaf: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        key: leaf.pop(key) for key in ("description", "default", "title") if key in leaf
    }
    holes = [{"$ref": f"#/$defs/hole_{word}"} for word in _HOLES]
    return {"anyOf": [leaf, *holes], **kept}


def _with_one_of(definition: dict[str, Any]) -> dict[str, Any]:
    """A section with branches: one of them plainly, or several under `one_of`."""
    branches = {
        name: next((o for o in leaf.get("anyOf", [leaf]) if o.get("type") != "null"), leaf)
        for name, leaf in definition["properties"].items()
    }
    properties = {
        **branches,
        "one_of": {
            "type": "object",
            "properties": {name: {"anyOf": [b, {"type": "null"}]} for name, b in branches.items()},
            "additionalProperties": False,
            "minProperties": 1,
            "description": "alternatives; each may hold holes of its own",
        },
        "default": {"enum": list(branches), "description": "the branch of trial 0"},
    }
    return {
        "type": "object",
        "description": definition.get("description", ""),
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
    }
