"""The schema's rules that span leaves, durations, and the identity of a config."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_ray.config.duration import parse_duration_s
from fer_ray.config.schema import Config

BASE: dict[str, Any] = {"version": 1, "name": "x", "model": {"cnn": {}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"image_size": 40, "crop": 44}}, "crop <= image_size"),
        ({"model": {}}, "exactly one of cnn, resnet"),
        ({"model": {"cnn": {}, "resnet": {}}}, "exactly one of cnn, resnet"),
        ({"model": {"cnn": {"channels": []}}}, "1 to 8 blocks"),
        ({"model": {"cnn": {"channels": [8], "batchnorm": [2]}}}, "batchnorm names block 2"),
        ({"model": {"cnn": {"head_batchnorm": True}}}, "head_batchnorm needs"),
        ({"model": {"resnet": {"weights": "none", "unfreeze": 4}}}, "frozen random network"),
        (
            {"model": {"resnet": {"weights": "none", "unfreeze_from": "layer2"}}},
            "frozen random network",
        ),
        ({"model": {"resnet": {"stem": "small"}}}, "no ImageNet weights"),
        ({"train": {"optimizer": {"sgd": {"momentum": 0.0}}}}, "nesterov: true needs momentum"),
        (
            {"train": {"epochs": 2, "schedule": {"cosine": {"warmup_epochs": 3}}}},
            "warmup_epochs <=",
        ),
        ({"objective": {"metric": "val/log_loss"}}, "wants goal: minimize"),
        ({"objective": {"goal": "minimize"}}, "wants goal: maximize"),
        ({"stop": {"time_budget": "soon"}}, "a duration such as"),
        ({"train": {"batch_size": "64"}}, "valid integer"),
        ({"train": {"ema": float("inf")}}, "finite"),
        ({"name": "a/b"}, "pattern"),
        ({"version": 2}, "Input should be 1"),
        ({"train": {"lr": 1}}, "Extra inputs"),
    ],
)
def test_a_broken_rule_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Config.model_validate({**BASE, **change})


def test_the_shortest_config_is_valid_and_frozen() -> None:
    config = Config.model_validate(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 3  # type: ignore[misc]


def test_the_training_part_holds_what_decides_a_training_and_no_absent_branch() -> None:
    part = Config.model_validate(BASE).training_part()
    assert set(part) == {"version", "name", "data", "model", "augment", "train", "objective"}
    assert list(part["model"]) == ["cnn"]
    assert list(part["train"]["optimizer"]) == ["sgd"]
    assert list(part["train"]["schedule"]) == ["cosine"]


def test_the_fingerprint_is_that_of_the_training() -> None:
    base = Config.model_validate(BASE).fingerprint()
    same = [{"name": "other"}, {"search": {"trials": 3}}, {"keep": {"top": 1}}]
    other = [
        {"train": {"seed": 1}},
        {"data": {"crop": 40}},
        {"augment": {"flip_p": 0.4}},
        {"objective": {"metric": "val/macro_f1"}},
        {"model": {"cnn": {"width": 33}}},
    ]
    assert {Config.model_validate({**BASE, **c}).fingerprint() for c in same} == {base}
    assert base not in {Config.model_validate({**BASE, **c}).fingerprint() for c in other}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("40m", 2400), ("4h", 14400), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "4 h", "h", "-4h", "4h 30m", "1e3s", "0s", "0h0m", "4H"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        parse_duration_s(text)


@given(st.lists(st.tuples(st.integers(1, 99), st.sampled_from("smhd")), min_size=1, max_size=4))
def test_durations_add_up(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    unit_s = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    assert parse_duration_s(text) == sum(number * unit_s[unit] for number, unit in parts)
