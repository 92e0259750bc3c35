"""What a config makes of an image: as the network sees it in evaluation, and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_ray.config.schema import Config
from fer_ray.images.preprocess import Preprocess, build_recipe
from fer_ray.training.augment import augment

NUM_PREVIEWS = 8
_SEED = 0

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preview:
    """One image and what training makes of it.

    Attributes:
        original: uint8 [S, S], resized and equalised as the config says.
        augmented: uint8 [c, c] each.
    """

    original: Grey
    augmented: list[Grey]


def previews(config: Config, images: Sequence[Grey]) -> list[Preview]:
    """Augment each image `NUM_PREVIEWS` times with the code of the training; always the same draws.

    Args:
        config: its `data` and `augment` sections count; mixing two images is not shown.
        images: uint8 [H, W] each, of one size.
    """
    recipe = build_recipe(config.data, images[0].shape[0], 0.0, 1.0)
    static = Preprocess(recipe).static(torch.from_numpy(np.stack(images)))
    generator = torch.Generator().manual_seed(_SEED)
    result = []
    for image in static:
        batch = image.expand(NUM_PREVIEWS, -1, -1)
        versions = augment(batch, config.augment, config.data.crop, generator)
        result.append(Preview(image.numpy(), [_bytes(version[0]) for version in versions]))
    return result


def _bytes(unit: Tensor) -> Grey:
    """Float [c, c] in 0..1 to uint8."""
    return (unit * 255).round().clamp(0, 255).to(torch.uint8).numpy()
