"""Ray Data reads the prepared set once; every process of a node then shares it without copies.

The training and the validation split are put into the object store as numpy arrays, which workers
map read-only: measured, one copy a node whatever the number of trials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from fer_ray.config.sections.data import DataConfig
from fer_ray.data.loading import (
    SAMPLE_SIZE_PX,
    TrainingData,
    data_class_map,
    must_stream,
    sample_split,
    source_of,
    training_data,
)
from fer_ray.data.prepared import PreparedSet, Split, columns_of, map_labels, split_of
from fer_ray.data.streamed import StreamedSplit, label_counts_of
from fer_ray.errors import UserError
from fer_ray.labels import ClassMap


def put_training_data(data: DataConfig, say: Callable[[str], None]) -> Any:
    """Read both splits through Ray Data and put them into the object store.

    Args:
        data: the config's section.
        say: told whether the training images are held in memory or streamed, and why.

    Returns:
        a reference to a `TrainingData`; keep it alive as long as trials run.

    Raises:
        DataError: the source is missing or damaged.
    """
    prepared = source_of(data)
    dataset = _dataset(data, prepared, "train")
    streams, why = must_stream(data, prepared, 1)
    say(why)
    train = _shard(data_class_map(data, prepared), _size_px(prepared), dataset, streams)
    validation = _collect(_dataset(data, prepared, "validation"), _size_px(prepared))
    return ray.put(training_data(data, prepared, train, validation))


@dataclass(frozen=True)
class ShardedTraining:
    """A training split dealt out to workers, and what they share.

    Attributes:
        shards: a Ray Dataset a worker, in the order of sample ids, sizes within one row.
        common: reference to a `TrainingData` without training images.
        mapping: from the stored classes to those trained on.
        streams: whether workers read their shard again every epoch.
    """

    shards: list[Any]
    common: Any
    mapping: ClassMap
    streams: bool


def shard_training_data(data: DataConfig, num_workers: int) -> ShardedTraining:
    """Deal the training split out to workers, no row lost, none twice.

    Args:
        data: the config's section.
        num_workers: shards.

    Raises:
        DataError: the source is missing or damaged.
        UserError: fewer rows than workers.
    """
    prepared = source_of(data)
    dataset = _dataset(data, prepared, "train").sort("sample_id").materialize()
    count = dataset.count()
    if count < num_workers:
        raise UserError(f"{count} training images cannot be dealt out to {num_workers} workers")
    cuts = [round(count * worker / num_workers) for worker in range(1, num_workers)]
    shards = dataset.split_at_indices(cuts) if cuts else [dataset]
    size_px = _size_px(prepared)
    validation = _collect(_dataset(data, prepared, "validation"), size_px)
    none = Split(np.zeros((0, size_px, size_px), np.uint8), np.zeros(0, np.int64))
    common = training_data(data, prepared, none, validation)
    streams, _ = must_stream(data, prepared, num_workers)
    return ShardedTraining(shards, ray.put(common), data_class_map(data, prepared), streams)


def worker_training_data(sharded: ShardedTraining, rank: int) -> TrainingData:
    """One worker's share, called in the worker: its whole shard at once, or a stream of it."""
    common: TrainingData = ray.get(sharded.common)
    train = _shard(sharded.mapping, common.size_px, sharded.shards[rank], sharded.streams)
    if isinstance(train, Split):
        train = map_labels(train, sharded.mapping)
    return replace(common, train=train)


def _shard(mapping: ClassMap, size_px: int, dataset: Any, streams: bool) -> Split | StreamedSplit:
    if not streams:
        return _collect(dataset, size_px)
    # Blocks in the object store (spilled to disk where they must): reading them starts no task,
    # so trials that hold every CPU cannot starve it.
    blocks = dataset.materialize()
    return StreamedSplit(blocks, size_px, mapping, label_counts_of(blocks, mapping))


def _size_px(prepared: PreparedSet | None) -> int:
    return SAMPLE_SIZE_PX if prepared is None else prepared.size_px


def _dataset(data: DataConfig, prepared: PreparedSet | None, split: str) -> Any:
    """A split as a Ray Dataset of `sample_id`, `image`, `label` and, in training, `votes`."""
    # Ray Data sets its logger up when it is imported, so it is quieted here.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if prepared is None:
        return ray.data.from_arrow(_table(sample_split(split)))
    files = [str(path) for path in prepared.files(split)]
    with_votes = split == "train" and data.labels == "ferplus"
    columns = columns_of(prepared, with_votes=with_votes)
    return ray.data.read_parquet(files).select_columns(columns)


def _collect(dataset: Any, size_px: int) -> Split:
    """All blocks of a dataset as one split; blocks arrive in any order, so rows are sorted."""
    blocks = dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    return split_of(pa.concat_tables(list(blocks)).sort_by("sample_id"), size_px)


def _table(split: Split) -> pa.Table:
    """The built-in faces in the columns of a prepared set; their ids are their numbers."""
    return pa.table(
        {
            "sample_id": [f"{number:08d}" for number in range(len(split))],
            "image": pa.array([image.tobytes() for image in split.images], type=pa.binary()),
            "label": pa.array(split.labels, type=pa.int8()),
        }
    )
