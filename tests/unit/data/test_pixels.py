"""Figures of pixels: the same in any batches, and moved by what they are to tell."""

import numpy as np
import pytest
import torch

from fer_ray.data.faces import draw_faces
from fer_ray.data.pixels import PixelFigures
from fer_ray.images.preprocess import equalize_histogram


def figures_of(images: np.ndarray, batch: int = 64) -> PixelFigures:
    figures = PixelFigures(7)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        figures.add(part, np.zeros(len(part), np.int64))
    return figures


def faces() -> np.ndarray:
    return draw_faces(40, 3)[0]


def test_batches_change_nothing() -> None:
    one, many = figures_of(faces()), figures_of(faces(), 7)
    assert (one.mean, one.std, one.unevenness) == (many.mean, many.std, many.unevenness)
    assert one.detail == pytest.approx(many.detail)
    assert np.array_equal(one.mean_images(), many.mean_images())


def test_mean_and_deviations() -> None:
    images = faces()
    figures = PixelFigures(7)
    stds = figures.add(images, np.zeros(len(images), np.int64))
    assert np.allclose(stds, images.reshape(len(images), -1).std(axis=1), atol=1e-3)
    assert figures.mean == pytest.approx(images.mean() / 255)
    assert figures.std == pytest.approx(images.std() / 255)


def test_equalisation_flattens_and_a_blur_takes_detail() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 6, (40, 48, 48))
    images = np.clip(faces() + noise, 0, 255).astype(np.uint8)
    plain = figures_of(images)
    equal = figures_of(equalize_histogram(torch.from_numpy(images)).numpy())
    assert equal.unevenness < 0.02 < plain.unevenness
    wide = images.astype(np.float64)
    soft = sum(np.roll(wide, (y, x), (1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)) / 9
    assert figures_of(soft.astype(np.uint8)).detail < 0.5 * plain.detail


def test_no_image_and_one_grey() -> None:
    assert PixelFigures(7).detail == PixelFigures(7).unevenness == PixelFigures(7).mean == 0.0
    plain = figures_of(np.full((3, 8, 8), 90, np.uint8))
    assert plain.detail == 0.0
    assert plain.std == 0.0
