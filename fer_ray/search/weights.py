"""Pretrained weights of every network that a space can sample."""

from __future__ import annotations

import itertools
from typing import Any

from fer_ray.config.space import SearchSpace


def pretrained_states(space: SearchSpace) -> dict[str, dict[str, Any]]:
    """Weights of every ResNet of the space by `source/arch`, fetched before anything starts.

    Raises:
        UserError: they cannot be had.
    """
    from fer_ray.bundle.pretrained import pretrained_state

    domain: dict[str, tuple[Any, ...]] = {"weights": (), "arch": ()}
    for hole in space.holes:
        for name in domain:
            if hole.address == f"model.resnet.{name}":
                domain[name] = hole.choices
    resnet = _any_resnet(space)
    if resnet is None:
        return {}
    weights = domain["weights"] or (resnet.weights,)
    archs = domain["arch"] or (resnet.arch,)
    states = {}
    for source, arch in itertools.product(weights, archs):
        state = pretrained_state(str(source), str(arch))
        if state is not None:
            states[f"{source}/{arch}"] = {name: t.numpy() for name, t in state.items()}
    return states


def _any_resnet(space: SearchSpace) -> Any:
    """The ResNet branch at its defaults; None where the space has none."""
    branches = next((h.choices for h in space.holes if h.address == "model"), None)
    if branches is None:
        return space.base.model.resnet
    return space.resolve({"model": "resnet"}).model.resnet if "resnet" in branches else None
