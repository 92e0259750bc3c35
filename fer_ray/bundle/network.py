"""A bundle's network: built without memory, measured, and only then filled with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fer_ray.bundle import limits, manifest
from fer_ray.bundle.reading import open_listed
from fer_ray.bundle.tensors import NAME_OF_DTYPE, Shape, read_tensors
from fer_ray.config.sections.model import ModelConfig
from fer_ray.errors import BundleError, UserError
from fer_ray.images.preprocess import Recipe
from fer_ray.models.build import build_model, count_macs
from fer_ray.models.shapes import on_meta


def empty_network(model: ModelConfig, recipe: Recipe, num_classes: int, place: str) -> nn.Module:
    """Build the network on torch's `meta` device, where tensors have shapes and no memory.

    Args:
        model: its config.
        recipe: channels and side of its input.
        num_classes: logits.
        place: how errors name where the config came from.

    Raises:
        BundleError: its parts do not fit together, or it exceeds a limit of
            `fer_ray.bundle.limits`.
    """
    try:
        with on_meta():
            network = build_model(
                model,
                num_classes=num_classes,
                in_channels=recipe.channels,
                input_px=recipe.crop_px,
            )
    except UserError as error:
        raise BundleError(f"{place}: {error.message[:300]}") from error
    size = sum(value.nbytes for value in network.state_dict().values())
    if size > limits.MAX_WEIGHTS_BYTES:
        raise BundleError(
            f"{place}: the network has {size:,} bytes of weights; "
            f"at most {limits.MAX_WEIGHTS_BYTES:,} are read"
        )
    largest, macs = _appetite(network, recipe)
    if largest > limits.MAX_ACTIVATIONS or macs > limits.MAX_MACS:
        raise BundleError(
            f"{place}: one image makes {largest:,} numbers in a layer and {macs:,} multiply-adds; "
            f"at most {limits.MAX_ACTIVATIONS:,} and {limits.MAX_MACS:,} are computed"
        )
    return network


def _appetite(network: nn.Module, recipe: Recipe) -> tuple[int, int]:
    """Numbers in the largest layer's output, and multiply-adds, of one image."""
    largest = 0

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel())

    hooks = [module.register_forward_hook(see) for module in network.modules()]
    macs = count_macs(network, recipe.channels, recipe.crop_px)
    for hook in hooks:
        hook.remove()
    return largest, macs


def fill(network: nn.Module, directory: Path) -> nn.Module:
    """Give a network of `empty_network` the weights of a bundle.

    Returns:
        the same network, fp32, on the CPU, in evaluation mode.

    Raises:
        BundleError: `model.safetensors` does not hold exactly its tensors.
    """
    wanted = {
        name: Shape(NAME_OF_DTYPE[value.dtype], tuple(value.shape))
        for name, value in network.state_dict().items()
    }
    with open_listed(directory, manifest.WEIGHTS) as file:
        state = read_tensors(file, wanted, str(directory / manifest.WEIGHTS))
    network.load_state_dict(state, assign=True)
    return network.eval()
