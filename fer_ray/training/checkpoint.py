"""Checkpoints: one safetensors file, tensors and a JSON header, written atomically, no pickle."""

from __future__ import annotations

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

FORMAT = 1


def save_checkpoint(path: Path, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: the file.
        tensors: any names, any devices.
        document: JSON values.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = json.dumps({"format": FORMAT, **document}, allow_nan=False)
    write_atomic(path, save(plain, metadata={"fer_ray": header}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Raises:
        UserError: missing, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["fer_ray"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {error}") from error
    if document.get("format") != FORMAT:
        raise UserError(f"{path} has checkpoint format {document.get('format')}, not {FORMAT}")
    return tensors, document


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
