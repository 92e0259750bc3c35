"""Test-time augmentation: which crops of a stored image a network looks at.

    single      the centre
    flip        the centre and its mirror image
    ten_crop    the four corners and the centre, each with its mirror image (Krizhevsky et al. 2012)

The logits of an image's views are averaged, before the temperature.
"""

from __future__ import annotations

from torch import Tensor

from fer_ray.errors import UserError

VIEWS = {
    "single": "single view",
    "flip": "image and mirror image",
    "ten_crop": "ten crops",
}
"""Names, and what to call them in text."""


def check_views(views: str, image_size_px: int, crop_px: int) -> str:
    """`views`, if an image of that size has them.

    Raises:
        UserError: an unknown name, or ten crops that would all be the same.
    """
    if views not in VIEWS:
        raise UserError(f"views is one of {', '.join(VIEWS)}, but got {views!r}")
    if views == "ten_crop" and crop_px == image_size_px:
        raise UserError(
            f"ten_crop wants a crop smaller than the image, but both are {crop_px} pixels",
            "Use --views flip.",
        )
    return views


def crops_of(images: Tensor, crop_px: int, views: str) -> list[Tensor]:
    """Cut the views out.

    Args:
        images: uint8 [N, S, S], through `Preprocess.static`.
        crop_px: side of a crop, at most S.
        views: one of `VIEWS`.

    Returns:
        one uint8 [N, crop_px, crop_px] a view; the first is the centre.
    """
    end = images.shape[-1] - crop_px
    corners = [(0, 0), (0, end), (end, 0), (end, end)] if views == "ten_crop" else []
    crops = [
        images[:, top : top + crop_px, left : left + crop_px]
        for top, left in [(end // 2, end // 2), *corners]
    ]
    return crops if views == "single" else [*crops, *(crop.flip(-1) for crop in crops)]
