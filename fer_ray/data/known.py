"""FER2013 as it was published, to tell a pristine copy from an altered one.

Goodfellow et al. 2013, arXiv 1307.0414. Counts in canonical order.
"""

from __future__ import annotations

COUNTS: dict[str, tuple[int, ...]] = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
TRAIN_MEAN = 0.5077
TRAIN_STD = 0.2551
TOLERANCE = 0.002
TRAIN_UNEVENNESS = 0.125
TRAIN_DETAIL = 0.737
"""Of the image-folder copy; what they are: `fer_ray.data.pixels`."""
SIZE_PX = 48
SURPLUS_DUPLICATES = 1_853
SURPLUS_DUPLICATES_WITHOUT_TEST = 1_532
