"""The one preprocessing: resize, equalisation, centre crop, normalisation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.config.sections.data import DataConfig
from fer_ray.data.faces import draw_faces
from fer_ray.images.preprocess import Preprocess, Recipe, build_recipe, equalize_histogram


def recipe(**changes: object) -> Recipe:
    values = {
        "source_px": 48,
        "image_size_px": 48,
        "crop_px": 44,
        "channels": 1,
        "equalize": "none",
        "mean": 0.5,
        "std": 0.25,
    }
    return Recipe(**{**values, **changes})  # type: ignore[arg-type]


def faces(count: int = 9) -> torch.Tensor:
    return torch.from_numpy(draw_faces(count, 3)[0])


def opencv_equalize(image: np.ndarray) -> np.ndarray:
    """cv::equalizeHist, written out: modules/imgproc/src/histogram.cpp."""
    histogram = np.bincount(image.ravel(), minlength=256)
    first = int(np.flatnonzero(histogram)[0])
    if histogram[first] == image.size:
        return image
    scale = np.float32(255.0) / np.float32(image.size - histogram[first])
    table = np.zeros(256, np.uint8)
    total = 0
    for value in range(first + 1, 256):
        total += int(histogram[value])
        table[value] = min(255, int(np.rint(np.float32(total) * scale)))
    return table[image]


@given(
    seed=st.integers(0, 10_000),
    side=st.integers(1, 40),
    low=st.integers(0, 255),
    width=st.integers(0, 255),
)
def test_equalisation_is_opencvs(seed: int, side: int, low: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    high = min(255, low + width)
    images = generator.integers(low, high + 1, (3, side, side)).astype(np.uint8)
    found = equalize_histogram(torch.from_numpy(images)).numpy()
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.stack([opencv_equalize(image) for image in images]))


def test_equalisation_of_faces_and_of_one_grey() -> None:
    images = faces()
    found = equalize_histogram(images).numpy()
    assert np.array_equal(found, np.stack([opencv_equalize(image) for image in images.numpy()]))
    plain = torch.full((2, 8, 8), 93, dtype=torch.uint8)
    assert torch.equal(equalize_histogram(plain), plain)


def test_static_leaves_alone_what_needs_nothing() -> None:
    images = faces()
    assert Preprocess(recipe()).static(images) is images


@pytest.mark.parametrize("size", [24, 56, 112])
def test_static_resizes_with_antialiasing(size: int) -> None:
    images = faces()
    found = Preprocess(recipe(image_size_px=size, crop_px=size)).static(images)
    assert found.shape == (9, size, size)
    assert found.dtype == torch.uint8
    if size == 24:
        # A triangle over three to four pixels: near the mean of each 2 x 2, never one pixel.
        halves = images.float().reshape(9, 24, 2, 24, 2).mean(dim=(2, 4))
        assert (found.float() - halves).abs().mean() < 3
        stripes = torch.zeros(1, 48, 48, dtype=torch.uint8)
        stripes[:, :, ::2] = 255
        shrunk = Preprocess(recipe(image_size_px=24, crop_px=24)).static(stripes)
        assert (shrunk[:, :, 1:-1].float() - 127.5).abs().max() < 2
    assert (found.float().mean() - images.float().mean()).abs() < 2


def test_static_equalises_after_the_resize() -> None:
    images = faces()
    plain = Preprocess(recipe(image_size_px=24, crop_px=24)).static(images)
    found = Preprocess(recipe(image_size_px=24, crop_px=24, equalize="histogram")).static(images)
    assert torch.equal(found, equalize_histogram(plain))
    assert not torch.equal(found, plain)


def test_the_crop_is_the_centre() -> None:
    images = torch.arange(48 * 48).reshape(1, 48, 48).remainder(251).to(torch.uint8)
    found = Preprocess(recipe(crop_px=40, mean=0.0, std=1.0))(images)
    assert found.shape == (1, 1, 40, 40)
    assert torch.equal((found * 255).round().to(torch.uint8)[:, 0], images[:, 4:44, 4:44])


def test_normalisation_and_repeated_channels() -> None:
    images = faces()
    one = Preprocess(recipe(crop_px=48))(images)
    assert torch.allclose(one[:, 0], (images.float() / 255 - 0.5) / 0.25, atol=1e-6)
    three = Preprocess(recipe(crop_px=48, channels=3))(images)
    assert three.shape == (9, 3, 48, 48)
    assert all(torch.equal(three[:, channel], one[:, 0]) for channel in range(3))


@pytest.mark.parametrize("changes", [{}, {"image_size_px": 56, "crop_px": 50}, {"channels": 3}])
def test_a_batch_is_its_images_one_by_one(changes: dict[str, int]) -> None:
    preprocess = Preprocess(recipe(equalize="histogram", **changes))
    images = faces()
    whole = preprocess(images)
    parts = torch.cat([preprocess(images[i : i + 1]) for i in range(len(images))])
    assert torch.equal(whole, parts)


def test_evaluation_has_no_randomness() -> None:
    preprocess = Preprocess(recipe())
    preprocess.train()
    images = faces()
    torch.manual_seed(0)
    first = preprocess(images)
    before = torch.random.get_rng_state()
    assert torch.equal(preprocess(images), first)
    assert torch.equal(torch.random.get_rng_state(), before), "nothing was drawn"


@pytest.mark.parametrize(
    ("normalize", "moments"),
    [("dataset", (0.4, 0.2)), ("imagenet", (0.449, 0.226)), ("unit", (0.0, 1.0))],
)
def test_the_recipe_of_a_config(normalize: str, moments: tuple[float, float]) -> None:
    data = DataConfig.model_validate(
        {"normalize": normalize, "image_size": 56, "crop": 50, "channels": 3}
    )
    built = build_recipe(data, 48, 0.4, 0.2)
    assert (built.mean, built.std) == moments
    assert (built.source_px, built.image_size_px, built.crop_px, built.channels) == (48, 56, 50, 3)
    assert Recipe(**built.as_dict()) == built
