"""Augmentation of a batch on the device: one fused resampling, then light, then erasing.

Every sample draws its own values from the generator given; nothing else is random. What is drawn
and what is done with it are apart, so that references can be given the same draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_ray.config.sections.augment import AugmentConfig

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
    x = resample(x, draw_geometry(len(x), x.shape[-1], config, crop_px, generator), crop_px)
    if config.brightness_frac > 0 or config.contrast_frac > 0:
        brightness = 1 + _uniform(len(x), config.brightness_frac, generator)
        contrast = 1 + _uniform(len(x), config.contrast_frac, generator)
        x = relight(x, brightness, contrast)
    if config.erase_p > 0:
        mask = draw_mask(len(x), crop_px, config, generator)
        noise = torch.rand(x.shape, generator=generator, device=x.device)
        x = torch.where(mask[:, None], noise, x)
    return x


def _uniform(count: int, half: float, generator: torch.Generator) -> Tensor:
    """float32 [count], uniform in +- half."""
    draw = torch.rand(count, generator=generator, device=generator.device)
    return (2 * draw - 1) * half


@dataclass(frozen=True)
class Geometry:
    """How each image of a batch is moved; what is not moved is at its neutral value.

    The crop's window is placed, then its content is scaled, mirrored and turned about its centre,
    then shifted.

    Attributes:
        angle: float32 [N], radians; positive turns the picture counter-clockwise.
        zoom: float32 [N], above 1 enlarges.
        mirrored: bool [N].
        left, top: int64 [N], corner of the crop's window in the image, pixels.
        shift: float32 [2, N], x and y by which the window moves, share of the image's side.
    """

    angle: Tensor
    zoom: Tensor
    mirrored: Tensor
    left: Tensor
    top: Tensor
    shift: Tensor


def draw_geometry(
    count: int, size_px: int, config: AugmentConfig, crop_px: int, generator: torch.Generator
) -> Geometry:
    """Draw for `count` images of `size_px` pixels."""
    angle = _uniform(count, math.radians(config.rotate_deg), generator)
    zoom = 1 + _uniform(count, config.zoom_frac, generator)
    device = generator.device
    mirrored = torch.rand(count, generator=generator, device=device) < config.flip_p
    corners = torch.randint(
        0, size_px - crop_px + 1, (2, count), generator=generator, device=device
    )
    shift = torch.stack([_uniform(count, config.shift_frac, generator) for _ in range(2)])
    return Geometry(angle, zoom, mirrored, corners[0], corners[1], shift)


def resample(x: Tensor, geometry: Geometry, crop_px: int) -> Tensor:
    """Mirror, rotate, zoom, shift and crop in one bilinear resampling; edges are repeated.

    Args:
        x: float32 [N, 1, S, S].
        geometry: of each image.
        crop_px: side of the result.

    Returns:
        float32 [N, 1, crop_px, crop_px].
    """
    count, size = len(x), x.shape[-1]
    scale = (crop_px / size) / geometry.zoom
    sign = 1.0 - 2.0 * geometry.mirrored.float()
    # affine_grid's unit is half the image's side, measured from its centre.
    corner = torch.stack([geometry.left, geometry.top])
    centre = (corner + (crop_px - size) / 2) * (2 / size) + 2 * geometry.shift
    cos, sin = scale * torch.cos(geometry.angle), scale * torch.sin(geometry.angle)
    theta = torch.stack(
        [
            torch.stack([cos * sign, -sin, centre[0]], dim=1),
            torch.stack([sin * sign, cos, centre[1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [count, 1, crop_px, crop_px], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def relight(x: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Contrast about each image's mean, then brightness, as factors float32 [N]."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    shape = (-1, 1, 1, 1)
    return (((x - mean) * contrast.view(shape) + mean) * brightness.view(shape)).clamp_(0, 1)


def draw_mask(count: int, side: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """One random rectangle of some images, bool [N, side, side] (Zhong et al. 2017)."""
    device = generator.device

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
    return rows[:, :, None] & columns[:, None, :] & erased[:, None, None]
