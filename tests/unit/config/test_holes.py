"""Holes: bounds, steps, defaults, and the places where they may stand."""

import pytest

from fer_ray.config.holes import Hole
from fer_ray.config.space import parse_space
from fer_ray.errors import ConfigError

HEAD = "version: 1\nname: x\n"


def hole_of(text: str, address: str) -> Hole:
    (hole,) = [hole for hole in parse_space(HEAD + text, "a.yaml").holes if hole.address == address]
    return hole


def dropout(words: str) -> Hole:
    return hole_of(f"model: {{cnn: {{head_dropout: {words}}}}}\n", "model.cnn.head_dropout")


def batch_size(words: str) -> Hole:
    return hole_of(f"model: {{cnn: {{}}}}\ntrain: {{batch_size: {words}}}\n", "train.batch_size")


def weight_decay(words: str) -> Hole:
    text = f"model: {{cnn: {{}}}}\ntrain: {{optimizer: {{adam: {{weight_decay: {words}}}}}}}\n"
    return hole_of(text, "train.optimizer.adam.weight_decay")


@pytest.mark.parametrize(
    ("words", "default"),
    [
        ("{int: [16, 64]}", 40),
        ("{int: [16, 65]}", 40),
        ("{int: [16, 64], step: 16}", 32),
        ("{int: [16, 64], default: 64}", 64),
        ("{choice: [64, 32]}", 64),
        ("{choice: [64, 32], default: 32}", 32),
    ],
)
def test_the_default_of_whole_numbers_and_choices(words: str, default: int) -> None:
    hole = batch_size(words)
    assert hole.default == default
    assert type(hole.default) is int


@pytest.mark.parametrize(
    ("words", "default"),
    [
        ("{float: [0.0, 0.5]}", 0.25),
        ("{float: [0, 0.5], step: 0.1}", 0.2),
        ("{float: [0.0, 0.5], default: 0}", 0.0),
    ],
)
def test_the_default_of_real_numbers(words: str, default: float) -> None:
    hole = dropout(words)
    assert hole.default == pytest.approx(default, abs=1e-12)
    assert type(hole.default) is float


def test_the_default_of_log_is_the_geometric_middle() -> None:
    assert weight_decay("{log: [1.0e-6, 1.0e-2]}").default == pytest.approx(1e-4)
    assert weight_decay("{log: [1, 100]}").default == 10.0


def test_the_default_of_one_of_is_its_first_branch() -> None:
    text = "model: {cnn: {}}\ntrain: {optimizer: {one_of: {adam: {}, sgd: {}}%s}}\n"
    assert hole_of(text % "", "train.optimizer").default == "adam"
    assert hole_of(text % ", default: sgd", "train.optimizer").default == "sgd"


def test_bounds_are_inclusive_and_steps_are_kept() -> None:
    assert batch_size("{int: [16, 22], step: 2}").values() == (16, 18, 20, 22)
    assert batch_size("{int: [16, 18]}").values() == (16, 17, 18)
    assert dropout("{float: [0.1, 0.4], step: 0.1}").values() == (0.1, 0.2, 0.3, 0.4)
    assert dropout("{float: [0.1, 0.4]}").values() is None


def test_contains_knows_type_bounds_and_step() -> None:
    whole = batch_size("{int: [16, 22], step: 2}")
    assert [v for v in (15, 16, 17, 22, 24, 18.0, True) if whole.contains(v)] == [16, 22]
    real = dropout("{float: [0.1, 0.4], step: 0.1}")
    assert [v for v in (0.1, 0.15, 0.3, 0.4, 0.5, True) if real.contains(v)] == [0.1, 0.3, 0.4]
    choice = batch_size("{choice: [16, 32]}")
    assert [v for v in (16, 16.0, "16", 17) if choice.contains(v)] == [16]


def test_a_hole_inside_a_branch_knows_when_it_is_reached() -> None:
    text = """\
model:
  one_of:
    cnn: {depth: {int: [3, 4]}}
    resnet: {head_dropout: {float: [0.0, 0.4]}}
"""
    space = parse_space(HEAD + text, "a.yaml")
    assert [(hole.address, hole.when) for hole in space.holes] == [
        ("model", ()),
        ("model.cnn.depth", (("model", "cnn"),)),
        ("model.resnet.head_dropout", (("model", "resnet"),)),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{int: [64, 16]}", "low < high must hold, but got (low=64, high=16)"),
        ("{int: [16, 16]}", "low < high must hold"),
        ("{int: [16.0, 32]}", "two whole numbers"),
        ("{int: [16]}", "int wants [low, high]"),
        ("{int: 16}", "int wants [low, high]"),
        ("{int: [true, 32]}", "two whole numbers"),
        ("{int: [1, 1" + "0" * 400 + "]}", "low < high must hold"),
        ("{float: [.nan, 1]}", "low < high must hold"),
        ("{float: [0, .inf]}", "low < high must hold"),
        ("{log: [0, 1]}", "log wants low above 0"),
        ("{int: [16, 33], step: 16}", "high must be low plus whole steps"),
        ("{int: [16, 32], step: 0}", "step wants a number above 0"),
        ("{int: [16, 32], step: 1.5}", "step wants a number above 0"),
        ("{float: [16, 32], step: .nan}", "step wants a number above 0"),
        ("{float: [16, 32], step: .inf}", "step wants a number above 0"),
        ("{log: [16, 32], step: 2}", "unknown key 'step' beside log"),
        ("{choice: []}", "choice wants a list"),
        ("{choice: 16}", "choice wants a list"),
        ("{choice: [16, 16]}", "lists a value twice"),
        ("{choice: [{a: 1}]}", "alternatives with keys of their own are a one_of"),
        ("{int: [16, 32], choice: [16]}", "not both"),
        ("{int: [16, 32], default: 64}", "default 64 is outside 16 to 32"),
        ("{int: [16, 32], step: 8, default: 20}", "default 20 is outside"),
        ("{int: [16, 32], default: 16.5}", "default 16.5 is outside"),
        ("{choice: [16, 32], default: 64}", "default 64 is outside 16 | 32"),
        ("{choice: [16, 32], default: null}", "default None is outside"),
        ("{one_of: {}}", "one_of wants named branches"),
        ("{one_of: [a]}", "one_of wants named branches"),
        ("{one_of: {a: {}}, default: b}", "default 'b' is none of a"),
        ("{one_of: {a: {}}, default: [a]}", "default ['a'] is none of a"),
        ("{one_of: {a: {}}, b: {}}", "the branches stand under one_of"),
    ],
)
def test_a_wrong_hole_is_refused_at_its_place(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(f"{HEAD}model: {{cnn: {{}}}}\ntrain:\n  batch_size: {words}\n", "a.yaml")
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.line == 5


@pytest.mark.parametrize(
    ("section", "address"),
    [
        ("train: {epochs: {int: [5, 9]}}", "train.epochs"),
        ("train: {seed: {int: [0, 9]}}", "train.seed"),
        ("train: {device: {choice: [cpu, cuda]}}", "train.device"),
        ("train: {precision: {choice: [fp32, bf16]}}", "train.precision"),
        ("data: {channels: {choice: [1, 3]}}", "data.channels"),
        ("data: {classes: {choice: [fer7, fer4]}}", "data.classes"),
    ],
)
def test_no_hole_where_none_may_stand(section: str, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(f"{HEAD}model: {{cnn: {{}}}}\n{section}\n", "a.yaml")
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"{address} cannot be searched")
    assert problem.line == 4


@pytest.mark.parametrize(
    "section",
    [
        "data: {image_size: {choice: [48, 56]}}",
        "data: {crop: {int: [40, 48], step: 4}}",
        "data: {equalize: {choice: [none, histogram]}}",
    ],
)
def test_holes_in_data_where_they_may_stand(section: str) -> None:
    assert len(parse_space(f"{HEAD}model: {{cnn: {{}}}}\n{section}\n", "a.yaml").holes) == 1


def test_outside_the_searchable_sections_the_words_are_keys() -> None:
    with pytest.raises(ConfigError, match=r"search\.trials"):
        parse_space(f"{HEAD}model: {{cnn: {{}}}}\nsearch: {{trials: {{int: [1, 9]}}}}\n", "a.yaml")


def test_a_hole_describes_itself() -> None:
    assert batch_size("{int: [16, 32]}").describe() == "16 to 32"
    assert batch_size("{int: [16, 32], step: 8}").describe() == "16 to 32, step 8"
    assert batch_size("{choice: [16, 32]}").describe() == "16 | 32"
    assert weight_decay("{log: [1.0e-5, 1.0e-2]}").describe() == "1e-05 to 0.01, log"
