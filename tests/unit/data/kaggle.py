"""Small image folders in Kaggle's layout, and zips of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.labels import EXPRESSIONS

NUM_IMAGES = 40
PLACES = {"train": "train/{}/Training_{}.png", "validation": "test/{}/PublicTest_{}.png"}
PLACES["test"] = "test/{}/PrivateTest_{}.png"


def make_folder(root: Path, splits: tuple[str, ...] = ("train", "validation", "test")) -> Path:
    """Write 40 faces: half to train, a quarter each to validation and test."""
    images, labels = draw_faces(NUM_IMAGES, 7)
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        split = ("train", "validation", "train", "test")[number % 4]
        if split in splits:
            path = root / PLACES[split].format(EXPRESSIONS[label], number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def make_zip(folder: Path, path: Path, prefix: str = "") -> Path:
    """Pack a folder's files, last ones first, so that nothing rests on their order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path
