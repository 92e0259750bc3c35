"""From `data.source` to what a training sees, without Ray."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_ray.config.sections.data import DataConfig
from fer_ray.data.faces import draw_faces
from fer_ray.data.prepared import PreparedSet, Split, map_labels, open_prepared, read_split
from fer_ray.data.streamed import StreamedSplit
from fer_ray.errors import DataError
from fer_ray.labels import EXPRESSIONS, ClassMap, class_map

SAMPLE = "sample"
SAMPLE_COUNTS = {"train": 2400, "validation": 600}
SAMPLE_SIZE_PX = 48
SAMPLE_SEEDS = {"train": 1, "validation": 2}
"""The built-in faces: other identities, poses and light in each split."""


@dataclass(frozen=True)
class TrainingData:
    """What a training sees: no test split.

    Attributes:
        train: the training split, or one worker's shard of it, in memory or streamed.
        num_train: images of the whole training split.
        size_px: side of the stored images.
        mean, std: of the training images scaled to 0..1.
        fingerprint: of the data set it came from.
    """

    class_names: tuple[str, ...]
    train: Split | StreamedSplit
    validation: Split
    mean: float
    std: float
    fingerprint: str
    num_train: int
    size_px: int


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


@functools.cache
def sample_split(split: str) -> Split:
    """One split of the built-in synthetic faces."""
    return Split(*draw_faces(SAMPLE_COUNTS[split], SAMPLE_SEEDS[split]))


def must_stream(
    data: DataConfig, prepared: PreparedSet | None, num_workers: int
) -> tuple[bool, str]:
    """Whether a worker's shard is streamed every epoch, and a line that says why.

    `data.cache: auto` holds up to a quarter of the machine's memory.
    """
    if prepared is None:
        count, side = SAMPLE_COUNTS["train"], SAMPLE_SIZE_PX
    else:
        count, side = prepared.count("train"), prepared.size_px
    shard_bytes = count * side * side // num_workers
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    streams = data.cache == "stream" or (data.cache == "auto" and shard_bytes > limit)
    how = "streamed every epoch" if streams else "held in memory"
    return streams, (
        f"training images: {count:,}, {shard_bytes / 1e6:,.0f} MB a worker, {how} "
        f"(data.cache: {data.cache}; auto holds up to {limit / 1e9:.1f} GB)"
    )


def load_training_data(data: DataConfig) -> TrainingData:
    """Read the training and the validation split into memory.

    Raises:
        DataError: see `source_of`.
    """
    prepared = source_of(data)
    if prepared is None:
        return training_data(data, None, sample_split("train"), sample_split("validation"))
    votes = data.labels == "ferplus"
    train = read_split(prepared, "train", with_votes=votes)
    return training_data(data, prepared, train, read_split(prepared, "validation"))


def load_validation_data(data: DataConfig) -> TrainingData:
    """As `load_training_data`, but the training split stays on disk: its rows are none.

    Raises:
        DataError: see `source_of`.
    """
    prepared = source_of(data)
    if prepared is None:
        train, validation = sample_split("train"), sample_split("validation")
        return training_data(data, None, train, validation)
    empty = Split(
        np.zeros((0, prepared.size_px, prepared.size_px), np.uint8), np.zeros(0, np.int64)
    )
    return training_data(data, prepared, empty, read_split(prepared, "validation"))


def data_class_map(data: DataConfig, prepared: PreparedSet | None) -> ClassMap:
    """From the stored classes to those that `data.classes` trains on."""
    return class_map(data.classes, EXPRESSIONS if prepared is None else prepared.class_names)


def training_data(
    data: DataConfig,
    prepared: PreparedSet | None,
    train: Split | StreamedSplit,
    validation: Split,
) -> TrainingData:
    """Put splits, however they were read, together with what the data set says of itself.

    Args:
        data: the config's section.
        prepared: the data set; None for the built-in faces.
        train: stored labels; a streamed split maps its classes itself.
        validation: stored labels.
    """
    if data.labels == "ferplus" and prepared is None:
        raise DataError("labels: ferplus needs votes, and the built-in faces have none")
    mapping = data_class_map(data, prepared)
    if prepared is None:
        pixels = sample_split("train").images.astype(np.float64) / 255.0
        mean, std = float(pixels.mean()), float(pixels.std())
        labels = sample_split("train").labels
        num_train = int((np.asarray(mapping.index)[labels] >= 0).sum())
        fingerprint, size_px = SAMPLE, SAMPLE_SIZE_PX
    else:
        mean, std = prepared.info["train_mean"], prepared.info["train_std"]
        counts = prepared.info["counts"]["train"]
        kept = zip(prepared.class_names, mapping.index, strict=True)
        num_train = sum(counts[name] for name, index in kept if index >= 0)
        fingerprint, size_px = prepared.fingerprint, prepared.size_px
    return TrainingData(
        class_names=mapping.names,
        train=train if isinstance(train, StreamedSplit) else map_labels(train, mapping),
        validation=map_labels(validation, mapping),
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        num_train=num_train,
        size_px=size_px,
    )
