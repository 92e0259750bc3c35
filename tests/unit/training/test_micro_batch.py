"""Short memory: batches go through the network in parts, and train what the whole trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fer_ray.errors import FerRayError
from fer_ray.training.group import Group
from fer_ray.training.loop import Training
from fer_ray.training.micro_batch import MicroBatches
from tests.small import small_config, small_data

PLAIN = {
    "model.cnn": {
        "channels": [4, 8],
        "convs_per_block": 1,
        "batchnorm": "none",
        "head_dropout": 0.0,
    },
    "train.batch_size": 16,
}


class SmallDevice(Group):
    """A process whose device holds the activations of a few rows."""

    max_rows: int

    def __init__(self, max_rows: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__()
        object.__setattr__(self, "max_rows", max_rows)
        object.__setattr__(self, "error", error)

    def wrap(self, model: nn.Module) -> nn.Module:
        return Limited(model, self)


class Limited(nn.Module):
    """Goes forward with few rows at once, and runs out of memory with more."""

    def __init__(self, model: nn.Module, device: SmallDevice) -> None:
        super().__init__()
        self.model, self.device, self.sizes = model, device, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.device.max_rows:
            raise self.device.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        logits: Tensor = self.model(x)
        return logits


def trained(group: Group | None, said: list[str], **changes: Any) -> Training:
    training = Training(
        small_config({**PLAIN, **changes}), small_data(), group=group, say=said.append
    )
    for _ in training.epochs():
        pass
    return training


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("max_rows", [9, 7, 1])
def test_parts_train_what_the_whole_batch_trains(max_rows: int, error: type[RuntimeError]) -> None:
    weights = {"train.class_weights": "balanced", "augment": {"mixup_alpha": 0.4}}
    whole, said = trained(None, [], **weights), list[str]()
    parts = trained(SmallDevice(max_rows, error), said, **weights)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert parts.curve[-1]["train_loss"] == pytest.approx(whole.curve[-1]["train_loss"], rel=1e-5)
    assert parts.curve[-1]["train_accuracy"] == whole.curve[-1]["train_accuracy"]
    sizes = {9: [8], 7: [8, 4], 1: [8, 4, 2, 1]}[max_rows]
    assert [text.split(": ")[0] for text in said] == [
        f"out of memory with {before} images at once" for before in [16, *sizes][: len(sizes)]
    ]
    assert said[-1].endswith(
        f"going on with {sizes[-1]} at once, their gradients added up to the same batch of 16"
    )
    assert whole.curve[0]["micro_batch"] == 16
    assert [row["micro_batch"] for row in parts.curve] == [sizes[-1]] * 2


def test_memory_runs_out_once_and_not_in_every_step() -> None:
    training = trained(SmallDevice(4), [])
    sizes = training._step.net.sizes  # type: ignore[union-attr]
    assert sizes[:3] == [16, 8, 4]
    assert set(sizes[2:]) == {4}


def test_a_device_that_holds_no_image_ends_the_training() -> None:
    with pytest.raises(FerRayError, match="does not hold the training of this network on one"):
        trained(SmallDevice(0), [])


def test_other_errors_are_not_taken_for_short_memory() -> None:
    def broken(rows: slice) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        MicroBatches(lambda text: None).run(4, lambda: None, broken)


def test_several_ranks_end_with_a_remedy_instead_of_waiting_for_each_other() -> None:
    class TwoRanks(SmallDevice):
        def sum(self, value: Tensor) -> Tensor:
            return value

        def gather_ints(self, value: int) -> list[int]:
            return [value, value]

    group = TwoRanks(4)
    object.__setattr__(group, "size", 2)
    with pytest.raises(FerRayError, match="out of memory with 8 images at once, on 2 workers"):
        trained(group, [])


def test_a_resumed_training_keeps_its_parts(tmp_path: Path) -> None:
    batchnorm = {"model.cnn": {"channels": [4], "convs_per_block": 1}}  # parts act on it
    whole = trained(SmallDevice(4), [], **batchnorm)
    first = Training(small_config({**PLAIN, **batchnorm}), small_data(), group=SmallDevice(4))
    next(first.epochs())
    first.save(tmp_path / "checkpoint")
    second = Training(small_config({**PLAIN, **batchnorm}), small_data(), group=SmallDevice(4))
    second.resume(tmp_path / "checkpoint")
    assert second.micro_batch == 4
    for _ in second.epochs():
        pass
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


@given(num_rows=st.integers(1, 300), max_rows=st.integers(1, 300))
def test_parts_are_every_row_once_and_nearly_equal(num_rows: int, max_rows: int) -> None:
    micro = MicroBatches(lambda text: None)
    micro.max_rows = max_rows
    parts = micro.parts(num_rows)
    assert [row for part in parts for row in range(num_rows)[part]] == list(range(num_rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) == micro.largest(num_rows) <= max_rows
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == math.ceil(num_rows / max_rows)
