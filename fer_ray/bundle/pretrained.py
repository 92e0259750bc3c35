"""The weights that a ResNet's body starts from: ImageNet's, a file's, or another bundle's."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fer_ray.bundle.load import find_bundle, load_bundle
from fer_ray.config.sections.model import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models.weights import named_state

_BODY = "body."


def pretrained_state(weights: str, arch: str) -> dict[str, Tensor] | None:
    """The state dict named by `model.resnet.weights`.

    Args:
        weights: `imagenet`, `none`, a .safetensors or .pth file, or the directory of a bundle or of
            a run (its best bundle).
        arch: torchvision's name of the network.

    Returns:
        the body's state dict, or None for a random start that was asked for by `none`.

    Raises:
        UserError: they cannot be had, or are of another network; never a silent random start.
    """
    if weights in ("none", "imagenet") or not Path(weights).is_dir():
        return named_state(weights, arch)
    bundle = load_bundle(find_bundle(weights))
    model = bundle.contents.model
    resnet = model.resnet if model is not None else None
    if resnet is not None:
        found = str(resnet.arch)
    else:
        found = model.branch if model is not None else "ensemble"
    if found != arch:
        raise UserError(
            f"weights: {weights} holds a {found}, but model.resnet.arch is {arch}",
            f"Give a bundle of a {arch}"
            + (f", or set model.resnet.arch to {found}." if resnet is not None else "."),
        )
    return {
        name.removeprefix(_BODY): value
        for name, value in bundle.model.state_dict().items()
        if name.startswith(_BODY)
    }


def resnet_state(model: ModelConfig) -> dict[str, Tensor] | None:
    """The pretrained body that a model config asks for; None for a CNN or `weights: none`."""
    resnet = model.resnet
    return None if resnet is None else pretrained_state(resnet.weights, resnet.arch)
