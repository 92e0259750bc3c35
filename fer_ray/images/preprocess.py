"""The one preprocessing: grey uint8 images to network input. It travels in the bundle.

Two steps, so that training can put its augmentation between them:

    static:  uint8 [N, H, W] -> uint8 [N, S, S]          resize, equalise (done once a data set)
    finish:  float [N, 1, c, c] in 0..1 -> [N, C, c, c]  normalise, repeat channels

Evaluation is static, centre crop, finish; nothing random anywhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_ray.config.sections.data import DataConfig
from fer_ray.images.clahe import clahe

IMAGENET_MEAN = 0.449
IMAGENET_STD = 0.226
"""Grey counterparts of ImageNet's channel means (0.485, 0.456, 0.406) and deviations."""

_EQUALIZED_AT_ONCE = 64
"""Images: what lies in the processor's cache is equalised twice as fast, and needs no gigabyte."""


@dataclass(frozen=True)
class Recipe:
    """What a network expects; written to a bundle's `preprocessor_config.json`.

    Attributes:
        source_px: side at which images are decoded: that of the prepared data set.
        image_size_px: side after the resize on the device.
        crop_px: side of the centre crop that the network sees.
        channels: 1, or 3 = grey repeated.
        equalize: `none`, `histogram` or `clahe`.
        mean, std: of pixels scaled to 0..1.
    """

    source_px: int
    image_size_px: int
    crop_px: int
    channels: int
    equalize: str
    mean: float
    std: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Preprocess(nn.Module):
    """Applies a recipe to batches."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def static(self, images: Tensor) -> Tensor:
        """Resize and equalise.

        Args:
            images: uint8 [N, H, W], 0-255.

        Returns:
            uint8 [N, S, S], 0-255; the input itself where nothing is to be done.
        """
        size = self.recipe.image_size_px
        if images.shape[-2:] != (size, size):
            smooth = F.interpolate(
                images.unsqueeze(1).float(),
                (size, size),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
            images = smooth.squeeze(1).round_().clamp_(0, 255).to(torch.uint8)
        if self.recipe.equalize != "none":
            equalize = {"histogram": equalize_histogram, "clahe": clahe}[self.recipe.equalize]
            if torch.compiler.is_exporting() or _is_traced():
                return equalize(images)  # a graph's batch has no size yet to be cut into parts
            parts = torch.split(images, _EQUALIZED_AT_ONCE)
            images = torch.cat([equalize(part) for part in parts])
        return images

    def finish(self, unit: Tensor) -> Tensor:
        """Normalise float [N, 1, c, c] in 0..1, repeat to [N, C, c, c]."""
        x = (unit - self.recipe.mean) / self.recipe.std
        if self.recipe.channels > 1:
            x = x.expand(-1, self.recipe.channels, -1, -1)
        return x

    def scaled(self, crops: Tensor) -> Tensor:
        """uint8 crops [N, c, c] to float32 network input [N, C, c, c]."""
        return self.finish(crops.unsqueeze(1).float() / 255.0)

    def centre(self, images: Tensor) -> Tensor:
        """Static uint8 [N, S, S] to float32 network input [N, C, c, c]."""
        margin = (self.recipe.image_size_px - self.recipe.crop_px) // 2
        end = margin + self.recipe.crop_px
        return self.scaled(images[:, margin:end, margin:end])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W] to float32 [N, C, c, c], as every evaluation sees it."""
        return self.centre(self.static(images))


def _is_traced() -> bool:
    """Whether the tracer runs that OpenVINO converts with (torch does not type this)."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def equalize_histogram(images: Tensor) -> Tensor:
    """Histogram equalisation of each image, as OpenCV's `equalizeHist` computes it.

    Args:
        images: uint8 [N, H, W].

    Returns:
        uint8 [N, H, W]; an image of one grey value stays as it is.
    """
    count, height, width = images.shape
    flat = images.reshape(count, height * width).long()
    histogram = torch.zeros(count, 256, dtype=torch.float32, device=images.device)
    histogram.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
    cumulative = histogram.cumsum(1)
    first = histogram.gather(1, (histogram > 0).float().argmax(1, keepdim=True))
    rest = height * width - first
    # A true division: torch takes `255.0 / rest` as 255 times a rounded reciprocal.
    scale = torch.full_like(rest, 255.0) / rest.clamp(min=1)
    table = ((cumulative - first) * scale).round_().clamp_(0, 255)
    identity = torch.arange(256, dtype=torch.float32, device=images.device)
    table = torch.where(rest > 0, table, identity)
    return table.gather(1, flat).to(torch.uint8).reshape(images.shape)


def build_recipe(data: DataConfig, source_px: int, mean: float, std: float) -> Recipe:
    """The recipe of a config.

    Args:
        data: its `data` section.
        source_px: side of the prepared data set's images.
        mean, std: of the training images scaled to 0..1, for `normalize: dataset`.
    """
    values = {
        "dataset": (mean, std),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "unit": (0.0, 1.0),
    }
    chosen = values[data.normalize]
    return Recipe(source_px, data.image_size, data.crop, data.channels, data.equalize, *chosen)
