"""What the shipped spaces ask when they are searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fer_ray.config.space import flatten, load_space, parse_space
from fer_ray.runs import RunDirectory
from fer_ray.search.study import Study

SPACES = Path(__file__).parents[3] / "search_spaces"


def asked(text_or_path: Any, run: Path, count: int, *overrides: str) -> list[dict[str, Any]]:
    """Flattened configs of the first trials of a search."""
    if isinstance(text_or_path, Path):
        space = load_space(text_or_path, overrides)
    else:
        space = parse_space(text_or_path, "a.yaml", overrides)
    run.mkdir()
    study = Study(RunDirectory(run), space)
    return [flatten(study.ask().config.training_part()) for _ in range(count)]


def test_the_resnet_space_varies_everything_that_it_promises(tmp_path: Path) -> None:
    configs = asked(SPACES / "resnet.yaml", tmp_path / "run", 30)
    families = {config["model"] for config in configs}
    assert families == {"cnn", "resnet"}
    for address in (
        "model.resnet.arch",
        "model.cnn.depth",
        "model.resnet.unfreeze",
        "model.resnet.head_dropout",
        "model.cnn.head_dropout",
        "train.optimizer",
        "train.schedule",
    ):
        assert len({c[address] for c in configs if address in c}) >= 2, address


BOUNDED = """\
version: 1
name: a
data: {image_size: {int: [32, 36]}, crop: {int: [24, 32], step: 4}}
model:
  one_of:
    cnn: {depth: {int: [2, 4]}}
    resnet: {weights: none, head_dropout: {float: [0.0, 0.5]}}
augment: {erase_p: {float: [0.0, 1.0], step: 0.25}}
train: {optimizer: {one_of: {sgd: {lr: {log: [0.001, 0.1]}}, adam: {}}}}
search: {sampler: random, trials: 200}
"""


def test_every_branch_and_both_bounds_occur(tmp_path: Path) -> None:
    configs = asked(BOUNDED, tmp_path / "run", 150)
    seen: dict[str, set[Any]] = {}
    for config in configs:
        for address, value in config.items():
            if isinstance(value, list):
                continue
            seen.setdefault(address, set()).add(value)
    assert seen["data.image_size"] == {32, 33, 34, 35, 36}
    assert seen["data.crop"] == {24, 28, 32}
    assert seen["model.cnn.depth"] == {2, 3, 4}
    assert seen["augment.erase_p"] == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert seen["model"] == {"cnn", "resnet"}
    assert seen["train.optimizer"] == {"sgd", "adam"}
    rates = seen["train.optimizer.sgd.lr"]
    assert min(rates) < 0.0013
    assert max(rates) > 0.077
    assert min(rates) >= 0.001
    assert max(rates) <= 0.1


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_space_names_its_schema_for_editors(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve().is_file()
