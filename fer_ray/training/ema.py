"""Exponential moving average of weights and batch-norm statistics (Polyak averaging)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Keeps averaged copies of a model's floating-point tensors.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that short trainings are not held
    back by their random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_steps = 0
        self._live = _floats(model)
        self.averages = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the model, once a step."""
        self.num_steps += 1
        decay = min(self.decay, (1 + self.num_steps) / (10 + self.num_steps))
        torch._foreach_lerp_(
            list(self.averages.values()), [v.detach() for v in self._live.values()], 1 - decay
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and live values, in place; twice is nothing."""
        for name, live in self._live.items():
            average = self.averages[name]
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value for name, value in named.items() if value.is_floating_point()}
