"""A training split that is not held in memory: a Ray Dataset read again every epoch.

Only methods of the dataset are called here; Ray itself is imported in `ray_data`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.data.prepared import Split, map_labels, split_of
from fer_ray.labels import ClassMap

CHUNK_ROWS = 1024
SHUFFLE_ROWS = 8192
"""Rows that are shuffled with each other; 19 MB of 48-pixel images."""


@dataclass(frozen=True)
class StreamedSplit:
    """Rows of one worker.

    Attributes:
        dataset: a Ray Dataset of `image`, `label` and, for soft targets, `votes`.
        size_px: side of the stored images.
        classes: from stored labels to those trained on.
        label_counts: int64 [C], rows a class after the map.
    """

    dataset: Any
    size_px: int
    classes: ClassMap
    label_counts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.label_counts.sum())

    def chunks(self, seed: int) -> Iterator[Split]:
        """All rows once, in an order of the seed."""
        tables = self.dataset.iter_batches(
            batch_size=CHUNK_ROWS,
            batch_format="pyarrow",
            local_shuffle_buffer_size=SHUFFLE_ROWS,
            local_shuffle_seed=seed % 2**32,
        )
        for table in tables:
            yield map_labels(split_of(table, self.size_px), self.classes)


def label_counts_of(dataset: Any, classes: ClassMap) -> npt.NDArray[np.int64]:
    """Rows a class of a materialized Ray Dataset, after the map.

    Whole blocks are looked at, without a copy: to select the column would start a task, and trials
    that hold every CPU leave it none.
    """
    counts = np.zeros(len(classes.names), np.int64)
    index = np.asarray(classes.index)
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        labels = index[table.column("label").to_numpy().astype(np.int64)]
        counts += np.bincount(labels[labels >= 0], minlength=len(counts))
    return counts
