"""Pretrained weights: fetched once, hashed, read without running any pickled code."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fer_ray.config.schema import ModelConfig
from fer_ray.errors import UserError
from fer_ray.models import vision
from fer_ray.store import replacing

_DOWNLOAD_TIMEOUT_S = 30


def pretrained_state(weights: str, arch: str) -> dict[str, Tensor] | None:
    """The state dict named by `model.resnet.weights`.

    Args:
        weights: `imagenet`, `none`, or a .safetensors or .pth file.
        arch: torchvision's name of the network.

    Returns:
        the state dict, or None for a random start that was asked for by `none`.

    Raises:
        UserError: the weights cannot be had; never a silent random start.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        return _read(_imagenet_file(arch))
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"weights: {weights} is neither imagenet, none nor a file",
            "Give a .safetensors or .pth file, or weights: none for a random start.",
        )
    return _read(path)


def resnet_state(model: ModelConfig) -> dict[str, Tensor] | None:
    """The pretrained body that a model config asks for; None for a CNN or `weights: none`."""
    resnet = model.resnet
    return None if resnet is None else pretrained_state(resnet.weights, resnet.arch)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"cannot read the weights {path}: {str(error)[:200]}") from error
    except Exception as error:
        # torch raises pickle.UnpicklingError for a file that wants to run code.
        raise UserError(f"{path} is refused: it holds more than tensors") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"{path} is not a state dict of tensors")
    return state


def _imagenet_file(arch: str) -> Path:
    url = str(vision.models().get_model_weights(arch).IMAGENET1K_V1.url)
    name = url.rsplit("/", 1)[-1]
    expected = name.removesuffix(".pth").rsplit("-", 1)[-1]
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    path = root / "fer-ray" / "weights" / name
    if not path.is_file():
        _download(url, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(expected):
        raise UserError(
            f"{path} has sha256 {digest[:16]}..., but {expected}... is published",
            "Delete the file and try again.",
        )
    return path


def _download(url: str, path: Path) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as answer,
            replacing(path) as temporary,
            temporary.open("wb") as file,
        ):
            while chunk := answer.read(1 << 20):
                file.write(chunk)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"ImageNet weights cannot be fetched from {url}: {error}",
            f"Fetch that file on another machine and put it at {path}, "
            "or use -s model.resnet.weights=FILE, or a random start with "
            "-s model.resnet.weights=none -s model.resnet.unfreeze=5.",
        ) from error
