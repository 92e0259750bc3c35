"""The forward pass of every evaluation: device, precision, mode and batches."""

import pytest
import torch

from fer_ray.config.sections.model import ModelConfig
from fer_ray.errors import UserError
from fer_ray.images.preprocess import Preprocess, Recipe
from fer_ray.models.build import build_model
from fer_ray.models.inference import evaluating, logits_of, resolve_device, resolve_precision
from tests.small import small_data


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"cnn": {"channels": [4, 8], "block_dropout": 0.5}})
    return build_model(config, num_classes=7, in_channels=1, input_px=20)


PREPROCESS = Preprocess(Recipe(24, 24, 20, 1, "none", 0.5, 0.25))


def images() -> torch.Tensor:
    return torch.from_numpy(small_data().validation.images)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for name, there in {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }.items():
        if not there:
            with pytest.raises(UserError, match=f"device: {name} is not available here"):
                resolve_device(name)


def test_precision_by_name_is_kept_and_auto_is_one_of_them() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == "fp32"
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")


def test_evaluation_has_no_dropout_and_gives_the_mode_back() -> None:
    model = network().train()
    first = logits_of(model, PREPROCESS, images(), precision="fp32")
    assert torch.equal(logits_of(model, PREPROCESS, images(), precision="fp32"), first)
    assert model.training


def test_a_failure_in_evaluation_gives_the_mode_back_too() -> None:
    model = network().train()

    def fail() -> None:
        with evaluating(model):
            assert not model.training
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert model.training


def test_logits_do_not_depend_on_the_batch_size() -> None:
    model = network()
    whole = logits_of(model, PREPROCESS, images(), precision="fp32")
    assert whole.shape == (32, 7)
    assert whole.dtype == torch.float32
    for size in (1, 5, 32):
        parts = logits_of(model, PREPROCESS, images(), precision="fp32", batch_size=size)
        assert (parts - whole).abs().max() <= 1e-6


def test_bf16_rounds_a_little() -> None:
    model = network()
    exact = logits_of(model, PREPROCESS, images(), precision="fp32")
    rounded = logits_of(model, PREPROCESS, images(), precision="bf16")
    assert rounded.dtype == torch.float32
    difference = float((exact - rounded).abs().max())
    assert 0 < difference < 0.1
