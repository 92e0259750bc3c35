"""Several networks that answer as one: the mean of their calibrated probabilities.

Each member keeps its own preprocessing. The ensemble's is the identity: images go in as they were
decoded, scaled to 0..1, and the network turns them back into the integers they were, which is exact
in fp32 and in bf16 (neighbours among 0..255 stay apart in both). So members may differ in size,
crop, channels, equalisation and normalisation, and each sees bit by bit what it sees alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fer_ray.images.preprocess import Preprocess, Recipe


class Member(nn.Module):
    """One network with its preprocessing and temperature."""

    def __init__(self, network: nn.Module, recipe: Recipe, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocess(recipe)
        self.temperature = temperature

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 [N, H, W] to calibrated log-probabilities, float32 [N, C]."""
        dtype = next(self.network.parameters()).dtype
        x = self.preprocess(pixels).to(dtype).contiguous(memory_format=torch.channels_last)
        logits = self.network(x).float()
        return torch.log_softmax(logits / self.temperature, dim=1)


class Ensemble(nn.Module):
    """Soft vote: its logits are the logarithms of the mean probabilities.

    softmax(log p) = p, so temperature 1 gives the mean itself and others sharpen or soften it.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, unit: Tensor) -> Tensor:
        """float [N, 1, H, W], k / 255 for k in 0..255, to float32 [N, C]."""
        pixels = (unit.squeeze(1).float() * 255).round().to(torch.uint8)
        votes = torch.stack([member(pixels) for member in self.members])
        return torch.logsumexp(votes, dim=0) - math.log(len(self.members))


def identity_recipe(source_px: int) -> Recipe:
    """The preprocessing of an ensemble: none but the scaling to 0..1."""
    return Recipe(
        source_px=source_px,
        image_size_px=source_px,
        crop_px=source_px,
        channels=1,
        equalize="none",
        mean=0.0,
        std=1.0,
    )
