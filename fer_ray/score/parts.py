"""Writing a shard's rows: chunks in any order in, one Parquet file and its counts out."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.store import replacing

ROWS_A_GROUP = 65_536
NUM_BINS = 20
"""Of the histogram of scores, of equal width over 0..1."""


class Counts:
    """What the ledger says of a shard; counts of shards add up.

    Args:
        class_names: of the bundle.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.rows = 0
        self.uncertain = 0
        self.status: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.scores = np.zeros(NUM_BINS, np.int64)
        size = len(self.class_names)
        self.confusion = np.zeros((size, size), np.int64)

    def add(self, table: pa.Table) -> None:
        """Count rows."""
        self.rows += table.num_rows
        self.status.update(value_counts(table.column("status")))
        self.errors.update(value_counts(table.column("error_type")))
        self.labels.update(value_counts(table.column("label")))
        self.uncertain += int(pc.sum(table.column("uncertain")).as_py() or 0)
        scores = table.column("score").drop_null().to_numpy()
        bins = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        self.scores += np.bincount(bins, minlength=NUM_BINS)
        if "true_label" in table.column_names:
            self._compare(table)

    def _compare(self, table: pa.Table) -> None:
        names = pa.array(self.class_names)
        truth = pc.index_in(table.column("true_label"), names)
        answer = pc.index_in(table.column("label"), names)
        both = pc.and_(pc.is_valid(truth), pc.is_valid(answer))
        pair = (truth.filter(both).to_numpy(), answer.filter(both).to_numpy())
        np.add.at(self.confusion, pair, 1)

    def add_entry(self, entry: dict[str, Any]) -> None:
        """Add a shard's entry in the ledger."""
        self.rows += entry["rows"]
        self.uncertain += entry["uncertain"]
        self.status.update(entry["status"])
        self.errors.update(entry["errors"])
        self.labels.update(entry["labels"])
        self.scores += np.asarray(entry["scores"], np.int64)
        self.confusion += np.asarray(entry["confusion"], np.int64)

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "status": dict(self.status),
            "errors": dict(self.errors),
            "labels": dict(self.labels),
            "uncertain": self.uncertain,
            "scores": self.scores.tolist(),
            "confusion": self.confusion.tolist(),
        }


def value_counts(column: pa.ChunkedArray[Any]) -> dict[str, int]:
    """How often each value stands in a column; nulls are not counted."""
    counts = column.drop_null().value_counts()
    names, numbers = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
    return {str(name): int(number or 0) for name, number in zip(names, numbers, strict=True)}


class PartWriter:
    """One part in the making; nothing under its name until it is whole.

    Args:
        path: of the part.
        schema: of the rows.
        metadata: of the file.
        class_names: for the counts.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, metadata: dict[str, str], class_names: Sequence[str]
    ) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._schema = schema.with_metadata(metadata)
        self._writer: pq.ParquetWriter | None = None
        self._early: dict[int, pa.Table] = {}
        self._group: list[pa.Table] = []
        self._next = 0
        self.counts = Counts(class_names)

    def add(self, chunk: int, table: pa.Table) -> None:
        """Take a chunk; those that come early wait for the ones before them.

        Raises:
            OSError: it cannot be written.
        """
        self._early[chunk] = table
        while (ready := self._early.pop(self._next, None)) is not None:
            self.counts.add(ready)
            self._group.append(ready)
            self._next += 1
            if sum(len(each) for each in self._group) >= ROWS_A_GROUP:
                self._flush()

    @property
    def num_written(self) -> int:
        """Chunks taken in order so far."""
        return self._next

    def finish(self) -> int:
        """Give the part its name; returns its size in bytes.

        Raises:
            OSError: it cannot be written.
        """
        self._flush()
        assert self._writer is not None, "flushed"
        self._writer.close()
        with replacing(self._path) as whole:
            os.rename(self._temporary, whole)  # noqa: PTH104
        return self._path.stat().st_size

    def abandon(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError, pa.ArrowException):
            if self._writer is not None:
                self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        if self._group:
            table = pa.concat_tables(self._group).replace_schema_metadata(self._schema.metadata)
            self._writer.write_table(table, row_group_size=ROWS_A_GROUP)
            self._group = []
