"""A bundle as the start of another training: its body's tensors, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.pretrained import pretrained_state, resnet_state
from fer_ray.config.sections.model import ModelConfig
from fer_ray.errors import UserError
from fer_ray.evaluation.packing import pack
from fer_ray.runs import RunDirectory
from fer_ray.training.loop import Training
from tests.bundles import tiny_bundle
from tests.small import small_config, small_data

RESNET = {"resnet": {"weights": "none", "stem": "small"}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a ResNet18's bundle, untrained."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "faces")
    run.create("train", "", "sample")
    config, data = small_config({"model": RESNET, "name": "faces"}), small_data()
    training = Training(config, data)
    with torch.no_grad():
        for value in training.model.buffers():
            value.add_(1)  # statistics that no start has
    state = training.model.state_dict()
    pack(run.bundle(0), config=config, data=data, state=state, curve=[], data_name="faces")
    run.point_best(0)
    return run.path


@pytest.mark.parametrize("place", ["run", "bundle"])
def test_a_training_starts_from_the_body_of_a_bundle(bundle: Path, place: str) -> None:
    weights = str(bundle if place == "run" else bundle / "bundles" / "0")
    model = {"resnet": {"weights": weights, "stem": "small", "unfreeze": 0}}
    config = small_config({"model": model, "train.seed": 5})
    start = Training(config, small_data(), resnet_state(config.model)).model.state_dict()
    source = load_bundle(bundle / "bundles" / "0").model.state_dict()
    body = [name for name in source if name.startswith("body.")]
    assert len(body) == 120
    assert all(torch.equal(start[name], source[name]) for name in body)
    assert not torch.equal(start["head.1.weight"], source["head.1.weight"]), "the head is new"


def test_another_architecture_is_refused_by_both_names(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds a resnet18, but model.resnet.arch is resnet50"):
        pretrained_state(str(bundle), "resnet50")
    cnn = tiny_bundle(tmp_path / "cnn")
    with pytest.raises(UserError, match=r"holds a cnn, but model.resnet.arch is resnet18"):
        pretrained_state(str(cnn), "resnet18")


def test_another_stem_is_refused(bundle: Path) -> None:
    config = small_config({"model": {"resnet": {"weights": str(bundle), "stem": "imagenet"}}})
    with pytest.raises(UserError, match="filters of 3x3, not 7x7"):
        Training(config, small_data(), resnet_state(config.model))


def test_a_directory_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a bundle"):
        pretrained_state(str(tmp_path), "resnet18")


def test_none_and_a_cnn_start_at_random() -> None:
    assert resnet_state(ModelConfig.model_validate({"cnn": {}})) is None
    assert resnet_state(ModelConfig.model_validate({"resnet": {"weights": "none"}})) is None
