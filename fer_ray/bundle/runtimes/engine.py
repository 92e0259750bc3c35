"""What every runtime offers, and the one network that all of them are given."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from types import ModuleType
from typing import Protocol

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer_ray.errors import UserError
from fer_ray.images.preprocess import Preprocess

RUNTIMES = ("torch", "openvino", "onnxruntime")
PRECISIONS = ("auto", "fp32", "bf16")

_PACKAGES = {
    "torch": ("torch",),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
}
_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}


class Engine(Protocol):
    """A network at work in one runtime. Any thread may call it, several at once.

    Attributes:
        runtime: one of `RUNTIMES`.
        precision: `fp32` or `bf16`: what it computes in.
        batch_size: images a call that it is fastest with.
    """

    runtime: str
    precision: str
    batch_size: int

    def logits(self, crops: Tensor) -> Tensor:
        """uint8 [N, c, c] crops to float32 [N, C] on the CPU."""
        ...


class CropsToLogits(nn.Module):
    """The end of the preprocessing and the network, as one module that a runtime can convert.

    Args:
        model: batch norm folded, evaluation mode.
        preprocess: the bundle's.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.preprocess = preprocess
        self.eval()

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self.model(self.preprocess.scaled(crops))
        return logits


def is_installed(runtime: str) -> bool:
    """Whether all packages of a runtime are there; none is imported."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES[runtime])


def require_package(name: str, runtime: str) -> ModuleType:
    """Import a package of a runtime.

    Raises:
        UserError: it is not installed; names pip's extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{runtime} wants the package {error.name}, which is not installed",
            f"pip install 'fer-ray[{_EXTRAS[runtime]}]'",
        ) from error


def versions_of(runtime: str) -> dict[str, str]:
    """Of torch, which preprocesses for all of them, and of the runtime's packages."""
    names = dict.fromkeys(("torch", *_PACKAGES[runtime]))
    return {name: metadata.version(name) for name in names}


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Fold each batch norm that follows a convolution into it, in place, for evaluation."""
    previous_name, previous = "", None
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            setattr(model, previous_name, fuse_conv_bn_eval(previous, child))
            setattr(model, name, nn.Identity())
        else:
            fold_batchnorm(child)
        previous_name, previous = name, child
    return model
