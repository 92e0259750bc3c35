"""Rows of a prepared set to Parquet parts, in constant memory, one writer a split."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.pixels import PixelFigures
from fer_ray.data.prepared import GROUP, SCHEMA, VOTES

_ROWS_A_PART = 20_000
_BYTES_A_ROW_GROUP = 8 * 1024 * 1024
"""So many bytes of pixels wait in memory, a split."""


@dataclass(slots=True)
class Row:
    """One image to be written.

    Attributes:
        pixels: uint8 [size, size] as bytes.
        label: class index.
        source, group, votes: see `sources.record.Record`.
    """

    pixels: bytes
    label: int
    source: str
    group: str | None
    votes: bytes | None

    @property
    def digest(self) -> bytes:
        """sha256 of the pixels."""
        return hashlib.sha256(self.pixels).digest()


def schema_of(class_names: tuple[str, ...], *, group: bool, votes: bool) -> pa.Schema:
    """The columns of a prepared set, with its class names in the metadata."""
    schema = SCHEMA
    for wanted, column in ((group, GROUP), (votes, VOTES)):
        if wanted:
            schema = schema.append(column)
    return schema.with_metadata({"class_names": ",".join(class_names)})


@dataclass
class SplitWriter:
    """Writes one split.

    Attributes:
        directory: where the parts go.
        split: its name.
        schema: from `schema_of`.
        class_names: of the set.
        parts: files written so far.
        counts: images a class index.
        figures: of the pixels written so far, of the training split; else empty.
    """

    directory: Path
    split: str
    schema: pa.Schema
    class_names: tuple[str, ...]
    parts: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    _occurrences: Counter[bytes] = field(default_factory=Counter)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None
    _rows_in_part: int = 0

    def __post_init__(self) -> None:
        self.figures = PixelFigures(len(self.class_names))

    def add(self, row: Row, digest: bytes) -> None:
        """Write one row, sooner or later; `digest` is the row's."""
        # sample_id but for split and occurrence. Keys sort as the ids do: see `sample_ids`.
        key = digest[:8] + f"{row.label}-".encode()
        occurrence = self._occurrences[key]
        self._occurrences[key] = occurrence + 1
        self.counts[row.label] += 1
        self._rows.append(
            {
                "sample_id": f"{self._stem(key)}{occurrence}",
                "image": row.pixels,
                "label": row.label,
                "label_name": self.class_names[row.label],
                "source": row.source,
                "sha256": digest.hex(),
                "group": row.group,
                "votes": None if row.votes is None else list(row.votes),
            }
        )
        num_waiting = len(self._rows)
        if num_waiting * len(row.pixels) >= _BYTES_A_ROW_GROUP:
            self._write()
        if self._rows_in_part + len(self._rows) >= _ROWS_A_PART:
            self._end_part()

    def _stem(self, key: bytes) -> str:
        return f"{self.split}-{key[:8].hex()}-{key[8:].decode()}"

    def _write(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            name = f"part-{self.split}-{self.parts:05d}.parquet"
            self._writer = pq.ParquetWriter(self.directory / name, self.schema, compression="zstd")
            self.parts += 1
            self._rows_in_part = 0
        if self.split == "train":
            side = math.isqrt(len(self._rows[0]["image"]))
            pixels = np.frombuffer(b"".join(row["image"] for row in self._rows), np.uint8)
            labels = np.array([row["label"] for row in self._rows], np.int64)
            self.figures.add(pixels.reshape(-1, side, side), labels)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        self._rows_in_part += len(self._rows)
        self._rows = []

    def _end_part(self) -> None:
        self._write()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._rows_in_part = 0

    def close(self) -> None:
        """Write what waits; nothing is written after."""
        self._end_part()

    def sample_ids(self) -> Iterator[str]:
        """The ids of all rows, sorted."""
        for key in sorted(self._occurrences):
            stem = self._stem(key)
            yield from sorted(f"{stem}{number}" for number in range(self._occurrences[key]))

    def files(self) -> list[Path]:
        """The parts."""
        return sorted(self.directory.glob(f"part-{self.split}-*.parquet"))

    def take_back(self) -> Iterator[Row]:
        """Read the rows again, part by part, and delete each part behind them; after `close`."""
        for path in self.files():
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=256):
                    for row in batch.to_pylist():
                        votes = row.get("votes")
                        yield Row(
                            row["image"],
                            row["label"],
                            row["source"],
                            row.get("group"),
                            None if votes is None else bytes(votes),
                        )
            path.unlink()


def fingerprint(writers: dict[str, SplitWriter]) -> str:
    """sha256 over the sorted sample ids: the same images and labels, whatever their form."""
    digest = hashlib.sha256()
    between = b""
    for split in sorted(writers):
        for sample_id in writers[split].sample_ids():
            digest.update(between + sample_id.encode())
            between = b"\n"
    return digest.hexdigest()
