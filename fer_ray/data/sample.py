"""`fer-ray data sample`: the built-in synthetic faces as an image folder in Kaggle's layout."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.labels import EXPRESSIONS
from fer_ray.store import new_directory, require_absent

_VALIDATION_SHARE = 5
"""One face in so many goes to validation."""


def write_sample(out: Path, count: int, seed: int) -> None:
    """Write `train/<class>/Training_N.png` and `test/<class>/PublicTest_N.png`.

    Args:
        out: the new directory; it can be imported, scored, or looked at.
        count: faces in all.
        seed: of the drawing; the same seed gives the same faces.

    Raises:
        OutputExistsError: `out` is there.
    """
    require_absent(out, "the folder", "Choose another OUT, or delete it first.")
    images, labels = draw_faces(count, seed)
    with new_directory(out) as directory:
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            in_validation = number % _VALIDATION_SHARE == _VALIDATION_SHARE - 1
            folder = directory / ("test" if in_validation else "train") / EXPRESSIONS[label]
            folder.mkdir(parents=True, exist_ok=True)
            prefix = "PublicTest" if in_validation else "Training"
            Image.fromarray(pixels).save(folder / f"{prefix}_{number}.png")
