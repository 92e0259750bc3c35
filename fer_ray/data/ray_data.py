"""Ray Data reads the prepared set once; every process of a node then shares it without copies.

The training and the validation split are put into the object store as numpy arrays, which workers
map read-only: measured, one copy a node whatever the number of trials.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray
import ray.data

from fer_ray.config.schema import DataConfig
from fer_ray.data.loading import (
    SAMPLE_COUNTS,
    SAMPLE_SIZE_PX,
    sample_split,
    source_of,
    training_data,
)
from fer_ray.data.prepared import Split, split_of


def put_training_data(data: DataConfig) -> Any:
    """Read both splits through Ray Data and put them into the object store.

    Returns:
        a reference to a `TrainingData`; keep it alive as long as trials run.

    Raises:
        DataError: the source is missing or damaged.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    prepared = source_of(data)
    splits: dict[str, Split] = {}
    for name in SAMPLE_COUNTS:
        if prepared is None:
            dataset: Any = ray.data.from_arrow(_table(sample_split(name)))
            size_px = SAMPLE_SIZE_PX
        else:
            files = [str(path) for path in prepared.files(name)]
            dataset = ray.data.read_parquet(files, columns=["sample_id", "image", "label"])
            size_px = prepared.size_px
        splits[name] = _collect(dataset, size_px, in_order=prepared is not None)
    return ray.put(training_data(data, prepared, splits))


def _collect(dataset: Any, size_px: int, *, in_order: bool) -> Split:
    """All blocks of a dataset as one split; blocks arrive in any order, so rows are sorted."""
    blocks = dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    table = pa.concat_tables(list(blocks))
    if in_order:
        table = table.sort_by("sample_id")
    return split_of(table, size_px)


def _table(split: Split) -> pa.Table:
    images = pa.array([image.tobytes() for image in split.images], type=pa.binary())
    return pa.table({"image": images, "label": pa.array(split.labels, type=pa.int8())})
