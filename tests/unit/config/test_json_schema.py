"""The editors' schema: kept current, true of every shipped file, and not too generous."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fer_ray.config.json_schema import space_schema
from fer_ray.config.yaml_file import read_document

ROOT = Path(__file__).parents[3]
FILES = sorted([*ROOT.glob("search_spaces/**/*.yaml"), *ROOT.glob("recipes/*.yaml")])


def faults(tree: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(space_schema())
    return [error.message for error in validator.iter_errors(tree)]


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "docs" / "search-space.schema.json").read_text())
    assert committed == space_schema(), "run: fer-ray schema > docs/search-space.schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_files_are_valid_and_switch_it_on(path: Path) -> None:
    assert faults(read_document(path).tree) == []
    if "search_spaces" in path.parts:
        first = path.read_text().splitlines()[0]
        up = "../" * len(path.relative_to(ROOT).parent.parts)
        assert first == f"# yaml-language-server: $schema={up}docs/search-space.schema.json"


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": {"epochs": {"int": [1, 2]}}},
        {"train": {"lerning_rate": 1}},
        {"model": {"cnn": {"wdth": 3}}},
        {"model": {"one_of": {"vgg": {}}}},
        {"data": {"channels": {"choice": [1, 3]}}},
        {"augment": {"flip_p": {"float": [0.0, 1.0], "log": [0.1, 1.0]}}},
        {"search": {"trials": {"int": [1, 2]}}},
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(wrong: dict[str, Any]) -> None:
    right = {"version": 1, "name": "x", "model": {"cnn": {}}}
    assert faults(right) == []
    assert faults(right | wrong) != []
