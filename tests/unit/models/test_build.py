"""Networks from configs: shapes, gradients, sizes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fer_ray.config.sections.model import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models.build import build_model, count_macs, count_parameters, size_of
from fer_ray.models.shapes import ShapesOnly, on_meta
from tests.small import small_config


def built(model: dict[str, Any], channels: int = 1, px: int = 20, classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    config = ModelConfig.model_validate(model)
    return build_model(config, num_classes=classes, in_channels=channels, input_px=px)


def cnn(**changes: Any) -> dict[str, Any]:
    return {"cnn": {"channels": [4, 6, 8], "convs_per_block": 1, **changes}}


SPREAD: list[dict[str, Any]] = [
    cnn(),
    cnn(pool="flatten"),
    cnn(pool="flatten", stem_stride=2),
    cnn(residual=True),
    cnn(residual=True, batchnorm="none", convs_per_block=2),
    cnn(residual=True, stem_stride=2, channels=[8, 8, 8]),
    cnn(head=[16, 8], head_batchnorm=True),
    cnn(head=[16], head_batchnorm=False, head_dropout=0.0),
    cnn(batchnorm=[1, 3], block_dropout=0.2),
    cnn(convs_per_block=3, stem_stride=2),
    cnn(convs_per_block=2, batchnorm_after="block"),
    {"cnn": {"depth": 2, "width": 3}},
    {"resnet": {"weights": "none", "stem": "small"}},
    {"resnet": {"weights": "none", "head": [8]}},
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", SPREAD, ids=str)
def test_shapes_and_finite_gradients_for_every_parameter(
    model: dict[str, Any], channels: int
) -> None:
    network = built(model, channels).train()
    images = torch.randn(5, channels, 20, 20)
    logits = network(images)
    assert logits.shape == (5, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 6])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    gradient = sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)
    assert gradient > 0


def is_resnet(model: dict[str, Any]) -> bool:
    return "resnet" in model


def without_dropout(model: dict[str, Any]) -> dict[str, Any]:
    """The same network, able to learn everything by heart."""
    (family, leaves) = next(iter(model.items()))
    off = {"head_dropout": 0.0} | ({} if is_resnet(model) else {"block_dropout": 0.0})
    return {family: {**leaves, **off}}


AT_ONCE = (cnn(), SPREAD[1], SPREAD[4], SPREAD[6], SPREAD[-1])
"""One of each kind; the others learn in the long run."""
CONTRACT = [
    *(m if m in AT_ONCE else pytest.param(m, marks=pytest.mark.long) for m in SPREAD),
    pytest.param({"resnet": {"weights": "none", "arch": "resnet34"}}, marks=pytest.mark.long),
    pytest.param({"resnet": {"weights": "none", "arch": "resnet50"}}, marks=pytest.mark.long),
]


@pytest.mark.parametrize("model", CONTRACT, ids=str)
def test_every_network_learns_32_images_by_heart(model: dict[str, Any]) -> None:
    network = built(without_dropout(model)).train()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 1, 20, 20, generator=generator)
    labels = torch.arange(32) % 7
    optimizer = torch.optim.Adam(network.parameters(), 1e-3 if is_resnet(model) else 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        logits = network(images)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        if torch.equal(logits.argmax(1), labels):
            return
    raise AssertionError("it cannot learn 32 images in 200 steps")


@pytest.mark.parametrize("model", SPREAD, ids=str)
def test_saved_and_loaded_it_answers_bit_by_bit(model: dict[str, Any], tmp_path: Path) -> None:
    network = built(model).train()
    images = torch.randn(6, 1, 20, 20)
    network(images)  # statistics that are not those of a start
    network.eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    with torch.device("meta"):
        twin = built(model)
    twin.load_state_dict(load_file(tmp_path / "w.safetensors"), assign=True)
    with torch.no_grad():
        assert torch.equal(twin.eval()(images), network(images))


def test_each_structural_leaf_changes_the_network() -> None:
    def shape_of(model: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
        return [(name, tuple(value.shape)) for name, value in built(model).state_dict().items()]

    base = shape_of(cnn())
    changes: list[dict[str, Any]] = [
        {"channels": [4, 6]},
        {"convs_per_block": 2},
        {"batchnorm": "none"},
        {"batchnorm": [1]},
        {"residual": True},
        {"pool": "flatten"},
        {"head": [8]},
        {"head": [8], "head_batchnorm": True},
    ]
    shapes = [shape_of(cnn(**change)) for change in changes]
    for number, shape in enumerate([base, *shapes]):
        assert shape not in shapes[number:], "all differ from each other"


def test_blocks_halve_the_image_and_average_pooling_spares_the_last() -> None:
    network = built(cnn(channels=[4, 4, 4]), px=20)
    sides = []
    for block in network.get_submodule("blocks"):
        block.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    network.eval()(torch.zeros(1, 1, 20, 20))
    assert sides == [10, 5, 5]
    sides.clear()
    flat = built(cnn(channels=[4, 4, 4], pool="flatten", stem_stride=2), px=20)
    for block in flat.get_submodule("blocks"):
        block.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    flat.eval()(torch.zeros(1, 1, 20, 20))
    assert sides == [5, 2, 1]


def test_too_many_blocks_are_refused_with_a_remedy() -> None:
    with pytest.raises(UserError, match="6 blocks shrink 20 pixels to nothing at block 5"):
        built(cnn(channels=[4] * 6), px=20)
    with pytest.raises(UserError, match="Use fewer blocks"):
        built(cnn(channels=[4] * 5, pool="flatten"), px=20)
    built(cnn(channels=[4] * 5), px=20)


def test_depth_and_width_double_from_block_to_block() -> None:
    network = built({"cnn": {"depth": 3, "width": 4, "convs_per_block": 1}})
    convs = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convs == [4, 8, 16]


def test_batch_norm_stands_in_the_named_blocks() -> None:
    network = built(cnn(batchnorm=[2]))
    has = [
        any(isinstance(m, nn.BatchNorm2d) for m in block.modules())
        for block in network.get_submodule("blocks")
    ]
    assert has == [False, True, False]


def test_batch_norm_stands_after_each_convolution_or_once_a_block() -> None:
    def layers(where: str) -> list[str]:
        network = built(cnn(channels=[4], convs_per_block=2, batchnorm_after=where))
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        return [type(m).__name__ for m in network.modules() if isinstance(m, kinds)]

    assert layers("conv") == ["Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d"]
    assert layers("block") == ["Conv2d", "Conv2d", "BatchNorm2d"]


def shapes_of_forward(network: nn.Module, images: torch.Tensor) -> list[tuple[str, torch.Size]]:
    """Of what each module gives, in order."""
    seen: list[tuple[str, torch.Size]] = []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.append((name, out.shape)))
    with torch.no_grad():
        network.eval()(images)
    return seen


@pytest.mark.parametrize("px", [19, 20, 33])
@pytest.mark.parametrize("model", SPREAD, ids=str)
def test_shapes_alone_are_those_of_the_network(model: dict[str, Any], px: int) -> None:
    real = built(model, px=px)
    with on_meta():
        empty = built(model, px=px)
    assert all(value.is_meta for value in empty.state_dict().values())
    wanted = shapes_of_forward(real, torch.zeros(1, 1, px, px))
    with ShapesOnly():
        assert shapes_of_forward(empty, torch.empty(1, 1, px, px, device="meta")) == wanted
    assert count_macs(empty, 1, px) == count_macs(real, 1, px)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 4, 3), (1, 1, 8, 8)),
        (nn.Conv2d(1, 4, 3), (1, 1, 2, 2)),
        (nn.MaxPool2d(2), (1, 1, 1, 1)),
        (nn.Linear(3, 4), (1, 2)),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_shapes_too(layer: nn.Module, shape: list[int]) -> None:
    with pytest.raises(RuntimeError):
        layer(torch.zeros(shape))
    with pytest.raises(RuntimeError), ShapesOnly():
        layer.to("meta")(torch.empty(shape, device="meta"))


def test_parameters_and_macs_by_hand() -> None:
    network = built(cnn(channels=[4, 6], head=[5]), px=20)
    # 3x3 convolutions without bias, batch norm with 2 a channel, dense layers with bias.
    convolutions = 1 * 4 * 9 + 4 * 6 * 9
    assert count_parameters(network) == convolutions + 2 * (4 + 6) + (6 * 5 + 5) + (5 * 7 + 7)
    macs = 1 * 4 * 9 * 20 * 20 + 4 * 6 * 9 * 10 * 10 + 6 * 5 + 5 * 7
    assert count_macs(network, 1, 20) == macs


def test_a_stride_and_a_shortcut_by_hand() -> None:
    network = built(cnn(channels=[4], stem_stride=2, residual=True, batchnorm="none"), px=20)
    assert count_parameters(network) == (4 * 9 + 4) + (4 + 4) + (4 * 7 + 7)
    assert count_macs(network, 1, 20) == (4 * 9 + 4) * 10 * 10 + 4 * 7


def test_resnet18_has_its_published_size() -> None:
    config = small_config(
        {
            "model": {"resnet": {"weights": "none", "head": []}},
            "data": {"source": "sample", "image_size": 224, "crop": 224, "channels": 3},
        }
    )
    params, macs = size_of(config)
    dense = 512 * 1000 + 1000
    assert params - (512 * 7 + 7) + dense == 11_689_512, "torchvision's documented number"
    assert (macs - 512 * 7 + 512 * 1000) / 1e9 == pytest.approx(1.814, abs=0.001)


def test_the_size_of_a_config_is_that_of_its_network() -> None:
    config = small_config({"data.classes": "valence"})
    network = built({"cnn": config.model.cnn.model_dump()}, classes=3)  # type: ignore[union-attr]
    assert size_of(config) == (count_parameters(network), count_macs(network, 1, 20))


def test_counting_leaves_the_network_as_it_was() -> None:
    network = built(cnn(block_dropout=0.5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network, 1, 20)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
