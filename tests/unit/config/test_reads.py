"""A searched value that a training does not read is found by its name."""

from __future__ import annotations

from typing import Any

import pytest

from fer_ray.config.reads import Reads
from fer_ray.config.schema import Config
from fer_ray.errors import UserError
from fer_ray.training.loop import Training
from tests.small import small_config, small_data


def train_an_epoch(changes: dict[str, Any]) -> Reads:
    reads = Reads(small_config(changes))
    next(Training(reads.config, small_data()).epochs())
    return reads


def test_what_a_training_uses_is_read() -> None:
    changes = {"augment.erase_p": 0.1, "model.cnn.channels": None, "model.cnn.depth": 2}
    reads = train_an_epoch(changes)
    reads.require(
        {
            "model": "cnn",
            "model.cnn.depth": 2,
            "model.cnn.head_dropout": 0.1,
            "augment.erase_p": 0.1,
            "augment.erase_frac": 0.25,
            "train.batch_size": 16,
            "train.optimizer": "sgd",
            "train.optimizer.sgd.lr": 0.01,
            "train.early_stop": 3,
            "data.crop": 20,
        }
    )


def test_a_width_beside_explicit_channels_is_named() -> None:
    reads = train_an_epoch({})
    with pytest.raises(UserError, match=r"^model\.cnn\.width, model\.cnn\.depth: searched, but"):
        reads.require({"model.cnn.width": 32, "model.cnn.depth": 3, "model.cnn.head_dropout": 0.1})


def test_a_value_that_another_searched_one_switches_off_may_lie_idle() -> None:
    reads = train_an_epoch({"augment.erase_p": 0.0})
    reads.require({"augment.erase_p": 0.0, "augment.erase_frac": 0.3})
    with pytest.raises(UserError, match=r"augment\.erase_frac"):
        reads.require({"augment.erase_frac": 0.3})


def test_to_dump_a_config_is_not_to_read_it() -> None:
    plain = small_config()
    reads = Reads(plain)
    config = reads.config
    assert config.fingerprint() == plain.fingerprint()
    assert config.model_dump() == plain.model_dump()
    with pytest.raises(UserError, match=r"train\.batch_size"):
        reads.require({"train.batch_size": 16})
    assert config.train.batch_size == 16
    reads.require({"train.batch_size": 16})


def test_a_closed_config_is_a_plain_one_and_shared_defaults_stay_alone() -> None:
    plain = small_config()
    shared = plain.augment, plain.search
    reads = Reads(plain)
    assert type(reads.config) is not Config
    reads.close()
    reads.close()
    assert type(reads.config) is Config
    assert reads.config == plain
    for section in (*shared, *Config.model_validate(plain.model_dump()).__dict__.values()):
        assert not type(section).__name__.startswith("Watched")
