"""CLAHE and histogram equalisation are OpenCV's, to the grey level."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.config.sections.data import DataConfig
from fer_ray.data.faces import draw_faces
from fer_ray.images.clahe import CLIP_LIMIT, TILES, clahe
from fer_ray.images.preprocess import Preprocess, build_recipe, equalize_histogram


def opencv_clahe(images: np.ndarray, clip_limit: float, tiles: int) -> np.ndarray:
    transform = cv2.createCLAHE(clip_limit, (tiles, tiles))
    return np.stack([transform.apply(image) for image in images])


def greatest_difference(images: np.ndarray, clip_limit: float, tiles: int) -> int:
    found = clahe(torch.from_numpy(images), clip_limit, tiles)
    assert found.dtype == torch.uint8
    assert found.shape == images.shape
    wanted = opencv_clahe(images, clip_limit, tiles).astype(int)
    return int(np.abs(found.numpy().astype(int) - wanted).max())


@given(
    seed=st.integers(0, 10_000),
    height=st.integers(9, 70),
    width=st.integers(9, 70),
    spread=st.sampled_from([0, 1, 5, 40, 255]),
    tiles=st.sampled_from([1, 2, 4, 8]),
    clip_limit=st.sampled_from([0.5, 2.0, 3.7, 40.0]),
)
def test_clahe_is_opencvs(
    seed: int, height: int, width: int, spread: int, tiles: int, clip_limit: float
) -> None:
    generator = np.random.default_rng(seed)
    low = int(generator.integers(0, 256 - spread))
    images = generator.integers(low, low + spread + 1, (2, height, width)).astype(np.uint8)
    assert greatest_difference(images, clip_limit, tiles) <= 1


@pytest.mark.parametrize("side", [44, 47, 48, 50, 56, 96])
def test_clahe_of_faces(side: int) -> None:
    faces = draw_faces(6, 3)[0]
    images = np.stack([cv2.resize(face, (side, side)) for face in faces])
    assert greatest_difference(images, CLIP_LIMIT, TILES) <= 1


@given(seed=st.integers(0, 10_000), side=st.integers(1, 60), spread=st.integers(0, 255))
def test_histogram_equalisation_is_opencvs(seed: int, side: int, spread: int) -> None:
    generator = np.random.default_rng(seed)
    low = int(generator.integers(0, 256 - spread))
    images = generator.integers(low, low + spread + 1, (3, side, side)).astype(np.uint8)
    found = equalize_histogram(torch.from_numpy(images)).numpy()
    assert np.array_equal(found, np.stack([cv2.equalizeHist(image) for image in images]))


def test_an_image_alone_is_as_in_a_batch() -> None:
    images = torch.from_numpy(draw_faces(9, 3)[0])
    assert torch.equal(clahe(images), torch.cat([clahe(image[None]) for image in images]))
    assert clahe(images[:0]).shape == (0, 48, 48)


@pytest.mark.parametrize("equalize", ["histogram", "clahe"])
def test_the_preprocessing_equalises_after_the_resize(equalize: str) -> None:
    data = DataConfig.model_validate({"equalize": equalize, "image_size": 56, "crop": 50})
    preprocess = Preprocess(build_recipe(data, 48, 0.5, 0.25))
    plain = DataConfig.model_validate({"image_size": 56, "crop": 50})
    images = torch.from_numpy(draw_faces(130, 3)[0])  # more than are equalised at once
    resized = Preprocess(build_recipe(plain, 48, 0.5, 0.25)).static(images)
    found = preprocess.static(images)
    wanted = {"histogram": equalize_histogram, "clahe": clahe}[equalize](resized)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, resized)
    assert torch.equal(preprocess.static(images[:1]), found[:1])
    assert preprocess.static(images[:0]).shape == (0, 56, 56)
