"""From `data.source` to what a training sees, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_ray.config.schema import DataConfig
from fer_ray.data.faces import draw_faces
from fer_ray.data.prepared import (
    PreparedSet,
    Split,
    TrainingData,
    map_classes,
    open_prepared,
    read_split,
)
from fer_ray.errors import DataError
from fer_ray.labels import EXPRESSIONS

SAMPLE = "sample"
SAMPLE_COUNTS = {"train": 2400, "validation": 600}
SAMPLE_SIZE_PX = 48
SAMPLE_SEEDS = {"train": 1, "validation": 2}
"""The built-in faces: other identities, poses and light in each split."""


def source_of(data: DataConfig) -> PreparedSet | None:
    """The prepared set that a config names; None for the built-in faces.

    Raises:
        DataError: no source, or one that is not there.
    """
    if data.source is None:
        raise DataError(
            "no data: the config has no data.source and --data was not given",
            "Use --data DIR (made by `fer-ray data import`), or --data sample for the built-in "
            "synthetic faces.",
        )
    return None if data.source == SAMPLE else open_prepared(Path(data.source))


def source_name(data: DataConfig) -> str:
    """How a model card names the data."""
    prepared = source_of(data)
    if prepared is None:
        return "synthetic faces"
    is_fer2013 = str(prepared.info["verdict"]).startswith("pristine FER2013")
    return "FER2013" if is_fer2013 else prepared.path.name


def sample_split(split: str) -> Split:
    """One split of the built-in synthetic faces."""
    return Split(*draw_faces(SAMPLE_COUNTS[split], SAMPLE_SEEDS[split]))


def load_training_data(data: DataConfig) -> TrainingData:
    """Read the training and the validation split into memory.

    Raises:
        DataError: see `source_of`.
    """
    prepared = source_of(data)
    if prepared is None:
        splits = {name: sample_split(name) for name in SAMPLE_COUNTS}
    else:
        splits = {name: read_split(prepared, name) for name in SAMPLE_COUNTS}
    return training_data(data, prepared, splits)


def train_moments(prepared: PreparedSet | None, sample: Callable[[], Split]) -> tuple[float, float]:
    """Mean and deviation of all training images scaled to 0..1, whoever holds a shard of them.

    Args:
        prepared: its manifest knows; None for the built-in faces.
        sample: gives the built-in training faces.
    """
    if prepared is not None:
        return prepared.info["train_mean"], prepared.info["train_std"]
    pixels = sample().images.astype(np.float64) / 255.0
    return float(pixels.mean()), float(pixels.std())


def training_data(
    data: DataConfig,
    prepared: PreparedSet | None,
    splits: dict[str, Split],
    moments: tuple[float, float] | None = None,
) -> TrainingData:
    """Put splits, however they were read, together with what the data set says of itself.

    Args:
        data: the config's section.
        prepared: the data set; None for the built-in faces.
        splits: `train` (a shard of it, if `moments` are given) and `validation`.
        moments: of the whole training split.
    """
    mean, std = moments or train_moments(prepared, lambda: splits["train"])
    names = EXPRESSIONS if prepared is None else prepared.class_names
    fingerprint = SAMPLE if prepared is None else prepared.fingerprint
    train, class_names = map_classes(splits["train"], names, data.classes)
    validation, _ = map_classes(splits["validation"], names, data.classes)
    return TrainingData(class_names, train, validation, mean, std, fingerprint)
