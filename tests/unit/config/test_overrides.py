"""`-s address=value`: one leaf of a file, changed from the command line."""

import pytest

from fer_ray.config.space import SearchSpace, parse_space
from fer_ray.errors import ConfigError

TEXT = """\
version: 1
name: x
model:
  one_of:
    cnn: {depth: {int: [3, 5]}, head_dropout: 0.2}
    resnet: {weights: imagenet, unfreeze: {int: [0, 5]}}
train:
  epochs: 9
  optimizer:
    one_of:
      sgd: {lr: {log: [1.0e-3, 1.0e-1]}}
      adam:
"""


def space(*overrides: str) -> SearchSpace:
    return parse_space(TEXT, "a.yaml", overrides)


def message_of(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        space(*overrides)
    (problem,) = caught.value.problems
    return str(problem)


def test_a_leaf() -> None:
    assert space("train.epochs=12").base.train.epochs == 12


def test_a_leaf_that_the_file_has_not() -> None:
    assert space("stop.time_budget=4h").base.stop.time_budget == "4h"
    assert space("augment.flip_p=0").base.augment.flip_p == 0.0


def test_a_leaf_inside_a_branch_skips_the_word_one_of() -> None:
    changed = space("model.resnet.weights=none", "model.resnet.unfreeze=5")
    resnet = changed.resolve({"model": "resnet"}).model.resnet
    assert resnet is not None
    assert (resnet.weights, resnet.unfreeze) == ("none", 5)
    assert "model.resnet.unfreeze" not in {hole.address for hole in changed.holes}


def test_a_leaf_inside_a_branch_without_keys() -> None:
    changed = space("train.optimizer.adam.lr=0.01")
    adam = changed.resolve({"train.optimizer": "adam"}).train.optimizer.adam
    assert adam is not None
    assert adam.lr == 0.01


def test_choosing_a_branch_leaves_that_branch_with_its_holes() -> None:
    changed = space("model=resnet")
    assert changed.base.model.branch == "resnet"
    addresses = [hole.address for hole in changed.holes]
    assert "model" not in addresses
    assert "model.cnn.depth" not in addresses
    assert "model.resnet.unfreeze" in addresses


def test_choosing_a_branch_then_changing_it() -> None:
    resnet = space("model=resnet", "model.resnet.unfreeze=2").base.model.resnet
    assert resnet is not None
    assert resnet.unfreeze == 2


def test_a_leaf_becomes_a_hole_and_a_hole_a_leaf() -> None:
    assert len(space("train.batch_size={choice: [32, 64]}").holes) == len(space().holes) + 1
    assert space("model.cnn.depth=3").base.model.cnn.depth == 3  # type: ignore[union-attr]


def test_the_last_override_wins() -> None:
    assert space("train.epochs=3", "train.epochs=5").base.train.epochs == 5


def test_a_mistake_in_a_chosen_branch_still_points_at_its_line() -> None:
    text = TEXT.replace("weights: imagenet", "weihgts: imagenet")
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "a.yaml", ["model=resnet"])
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (6, 14)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "an override reads address=value"),
        ("=3", "an override reads address=value"),
        ("train..epochs=3", "an override reads address=value"),
        ("train.epochs=[3", "not valid YAML"),
        ("train.epoch=3", "unknown key 'epoch' in train (did you mean epochs?)"),
        ("train.epochs=many", "valid integer, but got 'many'"),
        ("train.epochs.x=3", "epochs is a value, it has nothing under it"),
        ("model=vit", "model has no branch 'vit': cnn, resnet"),
        ("train.epochs={int: [1, 9]}", "train.epochs cannot be searched"),
    ],
)
def test_a_wrong_override_is_named_as_typed(override: str, words: str) -> None:
    text = message_of(override)
    assert text.startswith(f"-s {override}: ")
    assert words in text


def test_problems_of_all_overrides_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        space("model=vit", "train.epochs")
    assert len(caught.value.problems) == 2
