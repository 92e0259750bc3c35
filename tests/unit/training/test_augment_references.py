"""Each transform against OpenCV's or torchvision's own, image by image, on the same draws."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fer_ray.config.sections.augment import AugmentConfig
from fer_ray.models import vision
from fer_ray.training.augment import (
    Geometry,
    augment,
    draw_geometry,
    draw_mask,
    relight,
    resample,
)

SIZE, CROP, COUNT = 48, 40, 24
TOLERANCE = 0.01
"""OpenCV rounds coordinates to 1/32 of a pixel; the images change by at most 0.15 a pixel."""


@pytest.fixture(scope="module")
def smooth() -> Tensor:
    """float32 [N, 1, S, S] in 0..1 without sharp edges."""
    noise = np.random.default_rng(0).random((COUNT, SIZE, SIZE)).astype(np.float32)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    low = blurred.min(axis=(1, 2), keepdims=True)
    unit = (blurred - low) / (blurred.max(axis=(1, 2), keepdims=True) - low)
    return torch.from_numpy(unit)[:, None]


def functional() -> Any:
    vision.models()  # torchvision imports, whatever build it is
    from torchvision.transforms import functional

    return functional


def drawn(crop_px: int = CROP, **on: float) -> Geometry:
    off = {"flip_p": 0.0, "rotate_deg": 0.0, "zoom_frac": 0.0, "shift_frac": 0.0}
    config = AugmentConfig.model_validate({**off, **on})
    return draw_geometry(COUNT, SIZE, config, crop_px, torch.Generator().manual_seed(1))


def opencv(image: Tensor, geometry: Geometry, index: int, off_px: float = 0.0) -> Tensor:
    """The same picture by `warpAffine`, whose matrix goes from the result to the source, pixels."""
    angle, zoom = float(geometry.angle[index]), float(geometry.zoom[index])
    mirror = np.diag([-1.0 if geometry.mirrored[index] else 1.0, 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ mirror / zoom
    corner = np.array([float(geometry.left[index]), float(geometry.top[index])])
    middle = np.full(2, (CROP - 1) / 2)
    source_middle = corner + middle + geometry.shift[:, index].double().numpy() * SIZE + off_px
    matrix = np.column_stack([linear, source_middle - linear @ middle])
    warped = cv2.warpAffine(
        image[0].numpy(),
        matrix,
        (CROP, CROP),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return torch.from_numpy(warped)


@pytest.mark.parametrize(
    "on",
    [
        {"rotate_deg": 40.0},
        {"zoom_frac": 0.4},
        {"shift_frac": 0.2},
        {"flip_p": 0.5},
        {"rotate_deg": 40.0, "zoom_frac": 0.4, "shift_frac": 0.2, "flip_p": 0.5},
    ],
    ids=lambda on: "+".join(on),
)
def test_the_fused_resampling_is_warp_affine(smooth: Tensor, on: dict[str, float]) -> None:
    geometry = drawn(**on)
    found = resample(smooth, geometry, CROP)
    moved = 0.0
    for index, image in enumerate(smooth):
        wanted = opencv(image, geometry, index)
        assert float((found[index, 0] - wanted).abs().max()) < TOLERANCE
        other = opencv(image, geometry, index, off_px=0.5)
        moved = max(moved, float((found[index, 0] - other).abs().max()))
    assert moved > 3 * TOLERANCE, "half a pixel would be noticed"


def test_a_crop_and_a_mirror_image_are_torchvisions(smooth: Tensor) -> None:
    geometry = drawn(flip_p=0.5)
    found = resample(smooth, geometry, CROP)
    assert 0 < int(geometry.mirrored.sum()) < COUNT
    for index, image in enumerate(smooth):
        corner = int(geometry.top[index]), int(geometry.left[index])
        wanted = functional().crop(image, *corner, CROP, CROP)
        if geometry.mirrored[index]:
            wanted = functional().hflip(wanted)
        assert torch.allclose(found[index], wanted, atol=1e-5)


def test_light_is_torchvisions(smooth: Tensor) -> None:
    grey = 0.3 + 0.3 * smooth  # torchvision also clips between the two; here nothing is clipped
    generator = torch.Generator().manual_seed(2)
    brightness = 0.8 + 0.4 * torch.rand(COUNT, generator=generator)
    contrast = 0.8 + 0.4 * torch.rand(COUNT, generator=generator)
    found = relight(grey, brightness, contrast)
    for index, image in enumerate(grey):
        wanted = functional().adjust_contrast(image, float(contrast[index]))
        wanted = functional().adjust_brightness(wanted, float(brightness[index]))
        assert torch.allclose(found[index], wanted, atol=1e-5)


def test_light_is_clipped_as_torchvision_clips_it(smooth: Tensor) -> None:
    ones = torch.ones(COUNT)
    found = relight(smooth.clone(), 1.7 * ones, ones)
    assert torch.allclose(found, functional().adjust_brightness(smooth, 1.7), atol=1e-5)
    assert float(found.max()) == 1.0


def test_erasing_is_torchvisions_on_the_drawn_rectangle() -> None:
    config = AugmentConfig.model_validate(
        {
            "flip_p": 0.0,
            "rotate_deg": 0.0,
            "zoom_frac": 0.0,
            "shift_frac": 0.0,
            "brightness_frac": 0.0,
            "contrast_frac": 0.0,
            "erase_p": 0.7,
        }
    )
    images = torch.full((COUNT, SIZE, SIZE), 255, dtype=torch.uint8)
    found = augment(images, config, SIZE, torch.Generator().manual_seed(3))
    erased = 0
    for image in found:
        changed = image[0] != 1.0
        if not changed.any():
            continue
        erased += 1
        rows, columns = changed.any(dim=1).nonzero()[:, 0], changed.any(dim=0).nonzero()[:, 0]
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
        value = image[:, top : top + height, left : left + width]
        wanted = functional().erase(torch.ones_like(image), top, left, height, width, value)
        assert torch.equal(image, wanted)
        assert 0.2 < float(value.mean()) < 0.8 or value.numel() < 20, "noise, not one grey"
    assert 0.4 * COUNT < erased < COUNT


def test_rectangles_have_the_papers_areas_and_aspects() -> None:
    config = AugmentConfig.model_validate({"erase_p": 1.0, "erase_frac": 0.3})
    masks = draw_mask(2000, 64, config, torch.Generator().manual_seed(4))
    heights = masks.any(dim=2).sum(dim=1).float()
    widths = masks.any(dim=1).sum(dim=1).float()
    share = heights * widths / 64**2
    assert float(share.max()) < 0.3 * 1.15  # whole rows and columns
    assert float(share.mean()) == pytest.approx(0.15, abs=0.02)
    large = share > 0.1
    aspect = (heights / widths)[large]
    assert 0.25 < float(aspect.min()) < 0.45
    assert 2.2 < float(aspect.max()) < 4.0
