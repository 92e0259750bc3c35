"""The loss and mixing, optimizers, averages and checkpoints, each on its own."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from fer_ray.config.sections.train import OptimizerConfig
from fer_ray.errors import UserError
from fer_ray.models.inference import in_channels_last
from fer_ray.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from fer_ray.training.ema import Ema
from fer_ray.training.loop import Training
from fer_ray.training.loss import Loss, class_weights, cross_entropy, log_prior, mix
from fer_ray.training.optimizer import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    set_learning_rate,
)
from tests.small import small_config, small_data

# --- loss -----------------------------------------------------------------------------------------


def test_class_weights() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    counts = torch.tensor([8, 2, 0])
    assert class_weights(counts, "none") is None
    balanced = class_weights(counts, "balanced")
    rooted = class_weights(counts, "sqrt")
    assert balanced is not None
    assert rooted is not None
    assert float(balanced[1] / balanced[0]) == pytest.approx(4)
    assert float(rooted[1] / rooted[0]) == pytest.approx(2)
    for weight in (balanced, rooted):
        assert float(weight[labels].mean()) == pytest.approx(1), "mean 1 over the images"
        assert torch.isfinite(weight).all(), "a class without images does no harm"


def test_cross_entropy_with_smoothing_is_its_formula() -> None:
    logits, labels = torch.randn(9, 5), torch.arange(9) % 5
    log_p = logits.log_softmax(1)
    smoothed = 0.8 * nn.functional.one_hot(labels, 5) + 0.2 / 5
    expected = -(smoothed * log_p).sum(1).mean()
    assert torch.allclose(cross_entropy(logits, labels, 0.2, None), expected)
    hard = nn.functional.one_hot(labels, 5).float()
    assert torch.allclose(cross_entropy(logits, hard, 0.2, None), expected)


def test_a_rows_weight_does_not_depend_on_its_batch() -> None:
    logits, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])
    weight = torch.tensor([0.5, 2.0, 4.0])
    rows = torch.stack(
        [cross_entropy(logits[i : i + 1], labels[i : i + 1], 0.1, weight) for i in range(8)]
    )
    assert torch.allclose(cross_entropy(logits, labels, 0.1, weight), rows.mean())
    plain = -logits.log_softmax(1)[torch.arange(8), labels]
    assert torch.allclose(
        cross_entropy(logits, labels, 0.0, weight), (weight[labels] * plain).mean()
    )


def test_logit_adjustment_is_its_formula_and_favours_rare_classes() -> None:
    counts = torch.tensor([90, 9, 0])
    assert log_prior(counts, 0.0) is None
    shift = log_prior(counts, 2.0)
    assert shift is not None
    share = torch.tensor([90.0, 9.0, 1.0]) / 100  # a class without images counts as one
    assert torch.allclose(shift, 2 * share.log())
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    loss = Loss(0.0, shift=shift)(logits, labels)
    adjusted = (logits + 2 * share.log()).log_softmax(1)
    assert torch.allclose(loss, -adjusted[torch.arange(8), labels].mean())
    # With the same logits for all, a rare class's own rows pull harder at its logit.
    even = torch.zeros(2, 3, requires_grad=True)
    Loss(0.0, shift=log_prior(counts, 1.0))(even, torch.tensor([0, 1])).backward()
    assert even.grad is not None
    assert -even.grad[1, 1] > -even.grad[0, 0] > 0


def test_the_optimum_under_logit_adjustment_is_the_balanced_posterior() -> None:
    """Of two classes, 9 to 1, that look alike: plain logits say even, adjusted ones the prior."""
    labels = torch.tensor([0] * 9 + [1])
    shift = log_prior(torch.bincount(labels), 1.0)
    logit = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([logit], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        Loss(0.0, shift=shift)(logit.expand(10, 2), labels).backward()
        optimizer.step()
    assert torch.allclose(logit.softmax(0), torch.tensor([0.5, 0.5]), atol=1e-3)


def batch() -> tuple[Tensor, Tensor]:
    """Each image is filled with its label, so that a mixed image tells its own target."""
    labels = torch.arange(12) % 4
    return labels.float().view(-1, 1, 1, 1).expand(-1, 1, 10, 10).clone(), labels


def mixed(mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor]:
    x, labels = batch()
    generator = torch.Generator().manual_seed(seed)
    return mix(x, labels, 4, mixup_alpha=mixup, cutmix_alpha=cutmix, generator=generator)


def test_without_alpha_nothing_is_mixed_and_nothing_drawn() -> None:
    x, labels = batch()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    found, targets = mix(x, labels, 4, mixup_alpha=0, cutmix_alpha=0, generator=generator)
    assert found is x
    assert targets is labels
    assert torch.equal(generator.get_state(), before)


@given(
    seed=st.integers(0, 500),
    alphas=st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.01, 0.0)]),
)
def test_targets_are_the_shares_of_what_is_in_the_image(
    seed: int, alphas: tuple[float, float]
) -> None:
    x, targets = mixed(*alphas, seed)
    assert targets.shape == (12, 4)
    assert torch.allclose(targets.sum(1), torch.ones(12), atol=1e-5)
    assert (targets >= 0).all()
    # The mean of an image is the expected label under its target, for both ways of mixing.
    assert torch.allclose(x.mean(dim=(1, 2, 3)), targets @ torch.arange(4.0), atol=1e-4)


def test_cutmix_pastes_and_mixup_blends() -> None:
    pasted, _ = mixed(0.0, 1.0, 3)
    assert set(pasted.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    blended, _ = mixed(1.0, 0.0, 3)
    assert not set(blended.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert (blended.amax(dim=(1, 2, 3)) == blended.amin(dim=(1, 2, 3))).all()


def test_both_alphas_take_turns_by_lot() -> None:
    blends = 0
    for seed in range(60):
        x, _ = mixed(1.0, 1.0, seed)
        blends += not set(x.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert 15 < blends < 45


# --- optimizers -----------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    )
    return in_channels_last(layers)


def backward(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4, 3, 9, 9, generator=generator)
    model(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()


REFERENCES: dict[str, tuple[dict[str, Any], Any]] = {
    "sgd": (
        {"sgd": {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}},
        lambda groups: torch.optim.SGD(
            groups, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01, foreach=False
        ),
    ),
    "adam": (
        {"adam": {"lr": 0.01, "weight_decay": 0.01}},
        lambda groups: torch.optim.Adam(groups, lr=0.01, weight_decay=0.01, foreach=False),
    ),
    "adamw": (
        {"adamw": {"lr": 0.01, "weight_decay": 0.1}},
        lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, foreach=False),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_fused_optimizer_is_the_plain_one_in_any_memory_order(name: str) -> None:
    tree, plain = REFERENCES[name]
    ours, theirs = network(), network()
    optimizer = build_optimizer(ours, OptimizerConfig.model_validate(tree))
    decayed = [p for p in theirs.parameters() if p.ndim >= 2]
    rest = [p for p in theirs.parameters() if p.ndim < 2]
    reference = plain([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
    for step in range(3):
        for model, steps in ((ours, optimizer), (theirs, reference)):
            steps.zero_grad()
            backward(model, step)
            steps.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)


DECAY = {
    "sgd": {"sgd": {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.5}},
    "adam": {"adam": {"lr": 0.1, "weight_decay": 0.5}},
    "adamw": {"adamw": {"lr": 0.1, "weight_decay": 0.5}},
}


@pytest.mark.parametrize("name", DECAY)
def test_only_weights_decay_and_neither_batch_norm_nor_biases(name: str) -> None:
    model = network()
    optimizer = build_optimizer(model, OptimizerConfig.model_validate(DECAY[name]))
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    with torch.no_grad():
        for value in model.parameters():
            value.grad = torch.zeros_like(value)  # what changes now is decay alone
    optimizer.step()
    for key, value in model.named_parameters():
        changed = not torch.equal(value, before[key])
        assert changed == (key in ("0.weight", "3.weight")), key
        if changed:
            assert value.norm() < before[key].norm()


class BodyAndHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 3)


@pytest.mark.parametrize("name", DECAY)
def test_the_body_learns_at_its_factor_under_every_schedule(name: str) -> None:
    config = OptimizerConfig.model_validate({name: {"lr": 0.2}})
    model = BodyAndHead()
    optimizer = build_optimizer(model, config, body_lr_factor=0.1)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(model.body.weight)] == rate[id(model.body.bias)] == pytest.approx(0.02)
    assert rate[id(model.head.weight)] == rate[id(model.head.bias)] == 0.2
    set_learning_rate(optimizer, 0.1)  # what a schedule does
    alike = build_optimizer(twin := BodyAndHead(), config, body_lr_factor=1.0)
    set_learning_rate(alike, 0.1)
    for net, steps in ((model, optimizer), (twin, alike)):
        for value in net.parameters():
            value.grad = torch.ones_like(value)
        steps.step()
    start = BodyAndHead()
    body, whole = model.body.bias - start.body.bias, twin.body.bias - start.body.bias
    assert torch.allclose(body, whole * 0.1, rtol=1e-4)
    assert torch.equal(model.head.weight, twin.head.weight)


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    frozen = model.get_parameter("0.weight").requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig.model_validate({"adam": {}}))
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(frozen) not in inside
    assert len(inside) == 4


def test_the_learning_rate_is_that_of_the_branch() -> None:
    assert learning_rate(OptimizerConfig.model_validate({"adamw": {"lr": 0.02}})) == 0.02


def test_clipping_bounds_the_global_norm() -> None:
    model = network()
    backward(model)
    clip_gradients(model, 1e-3)
    norm = math.sqrt(
        sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
    )
    assert norm == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", REFERENCES)
def test_an_optimizer_goes_on_from_its_tensors(name: str, tmp_path: Path) -> None:
    config = OptimizerConfig.model_validate(REFERENCES[name][0])
    model = network()
    optimizer = build_optimizer(model, config)
    for step in range(2):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    save_checkpoint(tmp_path / "c", optimizer_tensors(optimizer), {})
    twin = network()
    twin.load_state_dict(model.state_dict())
    second = build_optimizer(twin, config)
    load_optimizer(second, load_checkpoint(tmp_path / "c")[0])
    for net, steps in ((model, optimizer), (twin, second)):
        steps.zero_grad()
        backward(net, 9)
        steps.step()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, two)


# --- averages -------------------------------------------------------------------------------------


def test_averages_follow_their_formula_and_statistics_too() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(model, 0.5)
    weight, mean = model[0].weight, model[1].running_mean
    assert isinstance(mean, Tensor)
    expected = {"0.weight": weight.detach().clone(), "1.running_mean": mean.clone()}
    for step in range(1, 9):
        with torch.no_grad():
            weight.add_(1.0)
            mean.add_(2.0)
        ema.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected["0.weight"].lerp_(weight.detach(), 1 - decay)
        expected["1.running_mean"].lerp_(mean, 1 - decay)
    for name, value in expected.items():
        assert torch.allclose(ema.averages[name], value)
    assert not any("num_batches_tracked" in name for name in ema.averages)


def test_swapping_twice_is_nothing() -> None:
    model = nn.Linear(2, 2)
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.add_(1.0)
    live, average = model.weight.detach().clone(), ema.averages["weight"].clone()
    ema.swap()
    assert torch.equal(model.weight, average)
    assert torch.equal(ema.averages["weight"], live)
    ema.swap()
    assert torch.equal(model.weight, live)
    assert torch.equal(ema.averages["weight"], average)


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    training = Training(small_config({"train.ema": 0.9}), small_data())
    next(training.epochs())
    training.save(tmp_path / "checkpoint.safetensors")
    return tmp_path / "checkpoint.safetensors"


def test_a_checkpoint_is_tensors_and_json_and_no_pickle(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    header_length = int.from_bytes(data[:8], "little")
    assert data[8:9] == b"{"
    with safe_open(checkpoint, framework="np") as file:
        groups = {name.split("/")[0] for name in file.keys()}  # noqa: SIM118
        numbers = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert groups == {"model", "ema", "best", "optimizer"}
    assert len(data) == 8 + header_length + numbers, "header and tensors, nothing else"
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: b"words, not a checkpoint",
        lambda data: data.replace(b"fer_ray", b"fer_rax", 1),
        lambda data: data.replace(b'\\"format\\": 2', b'\\"format\\": 7', 1),
    ],
)
def test_a_damaged_checkpoint_is_a_user_error(checkpoint: Path, damage: Any) -> None:
    data = damage(checkpoint.read_bytes())
    assert data != checkpoint.read_bytes()
    checkpoint.write_bytes(data)
    with pytest.raises(UserError, match="checkpoint"):
        load_checkpoint(checkpoint)


def test_one_flipped_bit_anywhere_is_a_user_error(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    places = [*range(200), *range(200, len(whole), max(1, len(whole) // 400)), len(whole) - 1]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        checkpoint.write_bytes(bytes(data))
        with pytest.raises(UserError, match="checkpoint"):
            load_checkpoint(checkpoint)
    checkpoint.write_bytes(whole)
    load_checkpoint(checkpoint)


def test_swapped_tensors_of_one_shape_are_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"a": torch.zeros(3), "b": torch.ones(3)}, {"epoch": 1})
    data = (tmp_path / "c").read_bytes()
    swapped = data.replace(b'"a"', b'"x"').replace(b'"b"', b'"a"').replace(b'"x"', b'"b"')
    assert swapped != data
    (tmp_path / "c").write_bytes(swapped)
    with pytest.raises(UserError, match="was changed or damaged"):
        load_checkpoint(tmp_path / "c")


def test_a_missing_checkpoint_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "none")


def test_nan_stays_out_of_the_document(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        save_checkpoint(tmp_path / "c", {}, {"loss": float("nan")})
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_tensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {
        "a": torch.tensor([1.5, float("inf"), -0.0]),
        "b": torch.arange(6).reshape(2, 3).t(),
        "c": torch.zeros((), dtype=torch.bfloat16),
    }
    save_checkpoint(tmp_path / "c", tensors, {"epoch": 3})
    found, document = load_checkpoint(tmp_path / "c")
    assert document["epoch"] == 3
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name].float().numpy(), value.float().numpy())
