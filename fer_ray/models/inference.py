"""The forward pass of every evaluation: training's validation and the Predictor call the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_ray.errors import UserError
from fer_ray.images.preprocess import Preprocess

BATCH_SIZE = 64
"""Images a forward pass; larger batches fall out of the CPU's cache."""


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        UserError: a device that is not there.
    """
    has_cuda = torch.cuda.is_available()
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if (name == "cuda" and not has_cuda) or (name == "mps" and not has_mps):
        raise UserError(f"device: {name} is not available here", "Use device: auto or cpu.")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 where the processor or GPU computes it natively, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        features = torch.backends.cpu.get_cpu_capability()
        native = features == "AVX512" and torch.cpu._is_avx512_bf16_supported()
        return "bf16" if native else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """bf16 arithmetic on fp32 weights, or nothing for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def in_channels_last(model: nn.Module) -> nn.Module:
    """Weights in the memory order that convolutions are fastest in (torch does not type this)."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and back to what it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def logits_of(
    model: nn.Module,
    preprocess: Preprocess,
    images: Tensor,
    *,
    precision: str,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """Logits of static images.

    Args:
        model: on the images' device.
        preprocess: its recipe.
        images: uint8 [N, S, S], already through `Preprocess.static`.
        precision: `fp32` or `bf16`.
        batch_size: images a forward pass.

    Returns:
        float32 [N, C] on the same device.
    """
    parts = []
    with evaluating(model), autocast(images.device, precision):
        for chunk in torch.split(images, batch_size):
            x = preprocess.centre(chunk).contiguous(memory_format=torch.channels_last)
            parts.append(model(x).float())
    return torch.cat(parts)


def features_of(
    model: nn.Module,
    preprocess: Preprocess,
    images: npt.NDArray[np.uint8],
    batch_size: int = BATCH_SIZE,
) -> npt.NDArray[np.float32]:
    """Penultimate features: what the last dense layer of the head sees, in fp32 on the CPU.

    Args:
        model: with a `head` whose last dense layer gives the logits.
        preprocess: its recipe.
        images: uint8 [N, H, W], 0-255, decoded at the recipe's `source_px`.
        batch_size: images a forward pass.

    Returns:
        float32 [N, D].
    """
    seen: list[Tensor] = []
    handle = _last_linear(model).register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].detach())
    )
    try:
        with evaluating(model):
            for start in range(0, len(images), batch_size):
                model(preprocess(torch.from_numpy(images[start : start + batch_size])))
    finally:
        handle.remove()
    empty = np.zeros((0, num_features(model)), np.float32)
    return np.concatenate([empty, *(part.numpy() for part in seen)])


def num_features(model: nn.Module) -> int:
    """Length of a penultimate feature vector."""
    return _last_linear(model).in_features


def _last_linear(model: nn.Module) -> nn.Linear:
    linears = [m for m in model.get_submodule("head").modules() if isinstance(m, nn.Linear)]
    return linears[-1]
