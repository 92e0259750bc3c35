"""Augmentation of a batch on the device: one fused resampling, then light, then erasing.

Every sample draws its own values from the generator given; nothing else is random.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_ray.config.schema import AugmentConfig

_MIN_ASPECT = 0.3


def augment(
    images: Tensor, config: AugmentConfig, crop_px: int, generator: torch.Generator
) -> Tensor:
    """Augment one batch.

    Args:
        images: uint8 [N, S, S], 0-255.
        config: strengths.
        crop_px: side of the random crop.
        generator: on the images' device.

    Returns:
        float32 [N, 1, crop_px, crop_px] in 0..1.
    """
    x = images.unsqueeze(1).float() / 255.0
    x = _resample(x, config, crop_px, generator)
    x = _light(x, config, generator)
    return _erase(x, config, generator)


def _uniform(count: int, half: float, generator: torch.Generator) -> Tensor:
    """float32 [count], uniform in +- half."""
    draw = torch.rand(count, generator=generator, device=generator.device)
    return (2 * draw - 1) * half


def _resample(x: Tensor, config: AugmentConfig, crop_px: int, generator: torch.Generator) -> Tensor:
    """Mirror, rotate, zoom, shift and crop in one bilinear resampling."""
    count, size = len(x), x.shape[-1]
    angle = _uniform(count, math.radians(config.rotate_deg), generator)
    scale = (crop_px / size) / (1 + _uniform(count, config.zoom_frac, generator))
    mirrored = torch.rand(count, generator=generator, device=x.device) < config.flip_p
    sign = 1.0 - 2.0 * mirrored.float()
    top_left = torch.randint(
        0, size - crop_px + 1, (2, count), generator=generator, device=x.device
    )
    shift = torch.stack([_uniform(count, config.shift_frac, generator) for _ in range(2)])
    # affine_grid's unit is half the image's side, measured from its centre.
    centre = (top_left + (crop_px - size) / 2) * (2 / size) + 2 * shift
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * sign, -sin, centre[0]], dim=1),
            torch.stack([sin * sign, cos, centre[1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [count, 1, crop_px, crop_px], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _light(x: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Brightness, and contrast around each image's mean."""
    if config.brightness_frac == 0 and config.contrast_frac == 0:
        return x
    shape = (-1, 1, 1, 1)
    brightness = 1 + _uniform(len(x), config.brightness_frac, generator).view(shape)
    contrast = 1 + _uniform(len(x), config.contrast_frac, generator).view(shape)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (((x - mean) * contrast + mean) * brightness).clamp_(0, 1)


def _erase(x: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Fill one random rectangle of some images with noise (Zhong et al. 2017)."""
    if config.erase_p == 0:
        return x
    count, side = len(x), x.shape[-1]
    device = x.device

    def draw() -> Tensor:
        return torch.rand(count, generator=generator, device=device)

    area = draw() * config.erase_frac * side * side
    aspect = torch.exp(_uniform(count, -math.log(_MIN_ASPECT), generator))
    height = (area * aspect).sqrt().clamp(1, side)
    width = (area / aspect).sqrt().clamp(1, side)
    top, left = draw() * (side - height), draw() * (side - width)
    erased = draw() < config.erase_p
    line = torch.arange(side, device=device)
    rows = (line >= top[:, None]) & (line < (top + height)[:, None])
    columns = (line >= left[:, None]) & (line < (left + width)[:, None])
    mask = rows[:, :, None] & columns[:, None, :] & erased[:, None, None]
    noise = torch.rand(x.shape, generator=generator, device=device)
    return torch.where(mask[:, None], noise, x)
