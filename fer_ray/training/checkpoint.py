"""Checkpoints: one safetensors file, tensors and a JSON header, written atomically, no pickle.

The header holds a sha256 over the tensors and the document: a training never goes on from numbers
that a disk or a copy has changed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from fer_ray.errors import UserError
from fer_ray.store import write_atomic

FORMAT = 2

CHECKPOINT_EVERY_S = 15.0
"""A training that dies loses the epochs since its last checkpoint: an epoch, or this time."""


def save_checkpoint(path: Path, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: the file.
        tensors: any names, any devices.
        document: JSON values.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digest = _digest(plain, document)
    header = json.dumps({"format": FORMAT, **document, "sha256": digest}, allow_nan=False)
    write_atomic(path, save(plain, metadata={"fer_ray": header}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Raises:
        UserError: missing, damaged (a single changed bit included), or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["fer_ray"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise UserError(f"{path} has checkpoint format {found}, not {FORMAT}")
    recorded = document.pop("sha256", None)
    found = _digest(tensors, {k: v for k, v in document.items() if k != "format"})
    if found != recorded:
        raise UserError(
            f"the checkpoint {path} was changed or damaged: its sha256 is {found[:16]}..., but "
            f"{str(recorded)[:16]}... was recorded",
            "Delete it to train from the start.",
        )
    return tensors, document


def _digest(tensors: dict[str, Tensor], document: dict[str, Any]) -> str:
    """sha256 over names, dtypes, shapes and bytes of contiguous CPU tensors, and the document."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors, `<parameter number>.<name>`."""
    flat = {}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                flat[f"{number}.{name}"] = torch.as_tensor(value)
    return flat


def load_optimizer(optimizer: Optimizer, flat: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back.

    Fused optimizers walk through raw memory: a tensor that belongs to a weight must lie in memory
    as the weight does (channels_last), or every element would meet another one's.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        like = parameters[int(number)]
        if value.shape == like.shape:
            value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
