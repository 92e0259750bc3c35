"""Make a smaller prepared data set: some training images, the whole validation split.

    python benchmarks/experiments/subset.py data/fer2013 data/fer2013-4000 --train 4000 [--seed 1]

For experiments on a reduced budget. The training images are drawn at random, each class with its
share; what is drawn depends on the seed alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fer_ray import api
from fer_ray.data.prepared import Split, open_prepared, read_split


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    prepared = open_prepared(arguments.data)
    train = read_split(prepared, "train")
    validation = read_split(prepared, "validation")
    drawn = stratified(np.asarray(train.labels), arguments.train, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "train"), train, drawn, prepared.class_names)
        everything = np.arange(len(validation.labels))
        write(Path(folder, "validation"), validation, everything, prepared.class_names)
        api.import_data(folder, arguments.out)
    print(f"{len(drawn)} training and {len(everything)} validation images in {arguments.out}")


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows, `count` of them within rounding, each class with its share."""
    generator = np.random.default_rng(seed)
    rows = [
        generator.choice(found, round(count * len(found) / len(labels)), replace=False)
        for found in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    return np.sort(np.concatenate(rows))


def write(folder: Path, split: Split, rows: np.ndarray, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
    for row in rows:
        name = names[int(split.labels[row])]
        Image.fromarray(np.asarray(split.images[row])).save(folder / name / f"{row:06}.png")


if __name__ == "__main__":
    main()
