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

from fer_ray.errors import UserError
from fer_ray.models import vision
from fer_ray.store import replacing

_DOWNLOAD_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 20

IMAGENET_SHA256 = {
    "resnet18": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34": "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "resnet50": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
}
"""Of torchvision's IMAGENET1K_V1 files. Their names publish the first eight digits; the whole sums
are those that many projects record for these files."""


def named_state(weights: str, arch: str) -> dict[str, Tensor] | None:
    """The state dict of `imagenet`, `none` or a file.

    Args:
        weights: as `model.resnet.weights`, but for bundles and runs, which
            `fer_ray.bundle.pretrained` reads.
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
            f"weights: {weights} is neither imagenet, none, a file, a bundle nor a run",
            "Give a .safetensors or .pth file, the directory of a fer-ray bundle or run, or "
            "weights: none for a random start.",
        )
    return _read(path)


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
    """The file in the user's cache, fetched where it is not there yet."""
    url = str(vision.models().get_model_weights(arch).IMAGENET1K_V1.url)
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    path = root / "fer-ray" / "weights" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        _download(url, path, IMAGENET_SHA256[arch])
        return path
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    _require_digest(path.name, digest.hexdigest(), IMAGENET_SHA256[arch], f"Delete {path}.")
    return path


def _download(url: str, path: Path, sha256: str) -> None:
    """Fetch a file; it appears under its name only once its sum is right."""
    digest = hashlib.sha256()
    try:
        with (
            urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as answer,
            replacing(path) as temporary,
        ):
            with temporary.open("wb") as file:
                while chunk := answer.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
            _require_digest(url, digest.hexdigest(), sha256, "Nothing was kept; try again.")
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"ImageNet weights cannot be fetched from {url}: {error}",
            f"Fetch that file on another machine and put it at {path}, "
            "or use -s model.resnet.weights=FILE, or a random start with "
            "-s model.resnet.weights=none -s model.resnet.unfreeze=5.",
        ) from error


def _require_digest(what: str, found: str, wanted: str, remedy: str) -> None:
    """
    Raises:
        UserError: the sums differ.
    """
    if found != wanted:
        raise UserError(f"{what} has sha256 {found}, but ImageNet's weights have {wanted}", remedy)
