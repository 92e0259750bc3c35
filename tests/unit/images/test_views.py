"""Which crops an image's views are."""

import pytest
import torch

from fer_ray.errors import UserError
from fer_ray.images.views import check_views, crops_of

IMAGES = torch.arange(2 * 5 * 5, dtype=torch.uint8).reshape(2, 5, 5)


def test_single_is_the_centre_rounded_to_the_upper_left() -> None:
    (crop,) = crops_of(IMAGES, 2, "single")
    assert crop.tolist() == IMAGES[:, 1:3, 1:3].tolist()
    assert crops_of(IMAGES, 5, "single")[0].tolist() == IMAGES.tolist()


def test_flip_mirrors_the_crop_itself() -> None:
    crop, mirrored = crops_of(IMAGES, 2, "flip")
    assert mirrored.tolist() == [[row[::-1] for row in image] for image in crop.tolist()]


def test_ten_crop_is_centre_and_corners_and_their_mirror_images() -> None:
    crops = crops_of(IMAGES, 3, "ten_crop")
    assert len(crops) == 10
    first = [int(crop[0, 0, 0]) for crop in crops[:5]]
    assert first == [6, 0, 2, 10, 12], "centre, then upper left, upper right, lower left and right"
    for crop, mirrored in zip(crops[:5], crops[5:], strict=True):
        assert crop.shape == (2, 3, 3)
        assert torch.equal(mirrored, crop.flip(-1))


def test_what_an_image_does_not_have_is_refused() -> None:
    assert check_views("ten_crop", 48, 44) == "ten_crop"
    with pytest.raises(UserError, match="views is one of single, flip, ten_crop, but got 'five'"):
        check_views("five", 48, 44)
    with pytest.raises(UserError, match="both are 48 pixels"):
        check_views("ten_crop", 48, 48)
    assert check_views("flip", 48, 48) == "flip"
