"""Several networks that answer as one: the mean of their calibrated probabilities.

Each member keeps its own preprocessing. What all share of its first step (size, equalisation) the
ensemble does once. Pixels scaled to 0..1 go into its network, which turns them back into the
integers they were: exactly in fp32, and in bf16 too, where neighbours among 0..255 stay apart. So
members may differ in size, crop, channels, equalisation and normalisation, and each sees bit by
bit what it sees alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

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


def shared_recipe(recipes: Sequence[Recipe]) -> Recipe:
    """The preprocessing of an ensemble: the first step of its members, where all have the same.

    Args:
        recipes: of the members, with one `source_px`.
    """
    first = recipes[0]
    same = len({(recipe.image_size_px, recipe.equalize) for recipe in recipes}) == 1
    size = first.image_size_px if same else first.source_px
    return Recipe(
        source_px=first.source_px,
        image_size_px=size,
        crop_px=size,
        channels=1,
        equalize=first.equalize if same else "none",
        mean=0.0,
        std=1.0,
    )


def vote(
    networks: Sequence[nn.Module], recipes: Sequence[Recipe], temperatures: Sequence[float]
) -> Ensemble:
    """The network of an ensemble, for input of `shared_recipe(recipes)`, in evaluation mode."""
    shared = shared_recipe(recipes)
    members = []
    for network, recipe, temperature in zip(networks, recipes, temperatures, strict=True):
        done = (recipe.image_size_px, recipe.equalize) == (shared.image_size_px, shared.equalize)
        rest = replace(recipe, equalize="none") if done else recipe
        members.append(Member(network, rest, temperature))
    return Ensemble(members).eval()
