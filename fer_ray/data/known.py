"""FER2013 as it was published, to tell a pristine copy from an altered one.

Goodfellow et al. 2013, arXiv 1307.0414. Counts in canonical order.
"""

from __future__ import annotations

from fer_ray.labels import EXPRESSIONS

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


def verdict_of(
    counts: dict[str, dict[str, int]],
    mean: float,
    std: float,
    surplus_duplicates: int,
    num_skipped: int,
) -> str:
    """Say in one line what a data set is.

    Args:
        counts: split -> class -> images.
        mean, std: of the training pixels, scaled to 0..1.
        surplus_duplicates: pixel-identical images beyond the first of each.
        num_skipped: images left out at import.
    """
    rows = {split: tuple(row.get(name, 0) for name in EXPRESSIONS) for split, row in counts.items()}
    differing = [split for split, row in rows.items() if row != COUNTS[split]]
    if differing:
        skipped = f", {num_skipped} skipped at import" if num_skipped else ""
        return f"not FER2013 as published: other class counts in {', '.join(differing)}{skipped}"
    if abs(mean - TRAIN_MEAN) > TOLERANCE or abs(std - TRAIN_STD) > TOLERANCE:
        return (
            f"altered FER2013: its counts, but training pixels with mean {mean:.4f} and "
            f"deviation {std:.4f} instead of {TRAIN_MEAN} and {TRAIN_STD}"
        )
    whole = "test" in rows
    expected = SURPLUS_DUPLICATES if whole else SURPLUS_DUPLICATES_WITHOUT_TEST
    if surplus_duplicates != expected:
        return (
            f"altered FER2013: its counts, but {surplus_duplicates:,} surplus duplicates "
            f"instead of {expected:,}"
        )
    return "pristine FER2013" if whole else "pristine FER2013 without PrivateTest"
