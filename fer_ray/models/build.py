"""From a model config to a network; its size in parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fer_ray.config.schema import Config
from fer_ray.config.sections.model import CnnConfig, ModelConfig, ResNetConfig
from fer_ray.labels import class_map
from fer_ray.models.cnn import Cnn
from fer_ray.models.resnet import ResNet, unfreeze_name
from fer_ray.models.shapes import ShapesOnly, on_meta


def build_model(
    model: ModelConfig,
    *,
    num_classes: int,
    in_channels: int,
    input_px: int,
    state: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a network with random weights, or a ResNet on pretrained ones.

    Args:
        model: its config.
        num_classes: logits.
        in_channels: 1 or 3.
        input_px: side of the images it sees.
        state: the body's pretrained weights, for a ResNet.

    Returns:
        a module from float [N, in_channels, input_px, input_px] to logits [N, num_classes].
    """
    if model.cnn is not None:
        return _cnn(model.cnn, num_classes, in_channels, input_px)
    assert model.resnet is not None
    return _resnet(model.resnet, num_classes, in_channels, state)


def block_channels(config: CnnConfig) -> tuple[int, ...]:
    """Channels of each block: given, or doubling from `width`."""
    if config.channels is not None:
        return config.channels
    return tuple(config.width * 2**block for block in range(config.depth))


def _cnn(config: CnnConfig, num_classes: int, in_channels: int, input_px: int) -> nn.Module:
    channels = block_channels(config)
    every = tuple(range(1, len(channels) + 1))
    named: dict[str, tuple[int, ...]] = {"all": every, "none": ()}
    batchnorm = config.batchnorm
    return Cnn(
        in_channels=in_channels,
        input_px=input_px,
        num_classes=num_classes,
        channels=channels,
        convs_per_block=config.convs_per_block,
        batchnorm=named[batchnorm] if isinstance(batchnorm, str) else batchnorm,
        batchnorm_after=config.batchnorm_after,
        block_dropout=config.block_dropout,
        stem_stride=config.stem_stride,
        residual=config.residual,
        pool=config.pool,
        head=config.head,
        head_batchnorm=config.head_batchnorm,
        head_dropout=config.head_dropout,
    )


def _resnet(
    config: ResNetConfig, num_classes: int, in_channels: int, state: Mapping[str, Tensor] | None
) -> nn.Module:
    return ResNet(
        arch=config.arch,
        in_channels=in_channels,
        num_classes=num_classes,
        stem=config.stem,
        unfreeze_from=unfreeze_name(config.unfreeze, config.unfreeze_from),
        unfreeze_batchnorm=config.unfreeze_batchnorm,
        head=config.head,
        head_dropout=config.head_dropout,
        state=state,
    )


def count_parameters(model: nn.Module) -> int:
    """Trained and frozen parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, in_channels: int, input_px: int) -> int:
    """Multiply-adds of convolutions and dense layers in one image's forward pass."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight.numel() * int(output.shape[-1]) * int(output.shape[-2])
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules()]
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad(), ShapesOnly():
        model(torch.zeros(1, in_channels, input_px, input_px, device=device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return total


def size_of(config: Config) -> tuple[int, int]:
    """Parameters and multiply-adds of a config's network, without its memory for weights."""
    names = class_map(config.data.classes).names
    with on_meta():
        model = build_model(
            config.model,
            num_classes=len(names),
            in_channels=config.data.channels,
            input_px=config.data.crop,
        )
    return count_parameters(model), count_macs(model, config.data.channels, config.data.crop)
