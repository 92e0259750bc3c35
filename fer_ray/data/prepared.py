"""The prepared data set: Parquet parts a split, and `_dataset.json` that makes it whole.

A command that may not see the test split never opens its files; whoever opens it is recorded in
`_test_openings.jsonl` first.
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.errors import DataError
from fer_ray.labels import ClassMap, class_map
from fer_ray.store import read_json

FORMAT = 1
MANIFEST = "_dataset.json"
TEST_OPENINGS = "_test_openings.jsonl"
SPLITS = ("train", "validation", "test")

_FIELDS: list[pa.Field[Any]] = [
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("image", pa.binary(), nullable=False),
    pa.field("label", pa.int8(), nullable=False),
    pa.field("label_name", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)
GROUP = pa.field("group", pa.string())
"""Optional: what `--group-by` kept in one split, such as a person."""
VOTES = pa.field("votes", pa.list_(pa.uint8()))
"""Optional: FER+ votes for the seven expressions in canonical order; may sum to less than ten."""


@dataclass(frozen=True)
class Split:
    """Images and labels in memory.

    Attributes:
        images: uint8 [N, H, W], 0-255.
        labels: int64 [N], class indices.
        votes: float32 [N, C], the annotators' votes as shares that sum to 1, or None.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    votes: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PreparedSet:
    """An opened data set: its manifest, not yet its images.

    Attributes:
        path: its directory.
        info: `_dataset.json`.
    """

    path: Path
    info: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.info["class_names"])

    @property
    def fingerprint(self) -> str:
        return str(self.info["fingerprint"])

    @property
    def size_px(self) -> int:
        return int(self.info["size_px"])

    def count(self, split: str) -> int:
        """Images in a split; 0 where the set has none."""
        return sum(self.info["counts"].get(split, {}).values())

    def files(self, split: str) -> list[Path]:
        """Parquet parts of a split, in order.

        Raises:
            DataError: a part is missing.
        """
        files = sorted(self.path.glob(f"part-{split}-*.parquet"))
        expected = int(self.info["parts"].get(split, 0))
        if len(files) != expected:
            raise DataError(
                f"{self.path} has {len(files)} part(s) of the {split} split, but its "
                f"{MANIFEST} names {expected}",
                "Import it again.",
            )
        return files


def open_prepared(path: Path) -> PreparedSet:
    """Open a prepared data set.

    Raises:
        DataError: there is none, or it is damaged or of another format version.
    """
    manifest = path / MANIFEST
    if not manifest.is_file():
        found = "there is nothing there" if not path.exists() else f"it has no {MANIFEST}"
        raise DataError(
            f"{path} is not a prepared data set: {found}",
            f"Make one with `fer-ray data import SOURCE {path}`; "
            "`--data sample` tries the built-in synthetic faces.",
        )
    info = read_json(manifest)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        version = info.get("format") if isinstance(info, dict) else None
        raise DataError(
            f"{manifest} has format {version!r}; this fer-ray reads format {FORMAT}",
            "Import the source again with this version.",
        )
    return PreparedSet(path, info)


def record_test_opening(prepared: PreparedSet, command: str, bundle_id: str) -> int:
    """Write down that the test split is about to be read.

    Returns:
        how often it has now been opened.

    Raises:
        DataError: it cannot be written down, so the split stays closed.
    """
    record = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "bundle": bundle_id,
    }
    path = prepared.path / TEST_OPENINGS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return len(path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise DataError(
            f"cannot append to {path} ({error.strerror}): every opening of the test split is "
            "written down before it is read",
            "Make the data set's directory writable.",
        ) from error


def columns_of(prepared: PreparedSet, *, with_votes: bool) -> list[str]:
    """Columns to read.

    Raises:
        DataError: votes are wanted, but the set has none.
    """
    columns = ["sample_id", "image", "label"]
    if not with_votes:
        return columns
    if "votes" not in pq.read_schema(prepared.files("train")[0]).names:
        raise DataError(
            f"{prepared.path} has no votes, which labels: ferplus trains on",
            "Import the CSV form with `--votes fer2013new.csv`, or use labels: hard.",
        )
    return [*columns, "votes"]


def read_split(prepared: PreparedSet, split: str, *, with_votes: bool = False) -> Split:
    """Read a split into memory, without Ray, in the order of its sample ids.

    Raises:
        DataError: the set has no such split, or a part is missing or damaged.
    """
    table = read_table(prepared, split, columns_of(prepared, with_votes=with_votes))
    return split_of(table, prepared.size_px)


def read_table(prepared: PreparedSet, split: str, columns: list[str]) -> pa.Table:
    """Some columns of a split, in the order of its sample ids.

    Args:
        columns: `sample_id` must be among them.

    Raises:
        DataError: the set has no such split, or a part is missing or damaged.
    """
    if prepared.count(split) == 0:
        have = ", ".join(name for name in SPLITS if prepared.count(name))
        raise DataError(f"{prepared.path} has no {split} split; it has {have}")
    tables = []
    for file in prepared.files(split):
        try:
            tables.append(pq.read_table(file, columns=columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read: {error}", "Import it again.") from error
    return pa.concat_tables(tables).sort_by("sample_id")


def split_of(table: pa.Table, size_px: int) -> Split:
    """Columns `image`, `label` and, where it is there, `votes` to arrays."""
    table = table.combine_chunks()
    labels = table.column("label").to_numpy().astype(np.int64)
    column = table.column("image")
    chunks = [_pixels(chunk, size_px) for chunk in column.chunks if len(chunk)]
    images = np.concatenate(chunks) if chunks else np.zeros((0, size_px, size_px), np.uint8)
    return Split(images, labels, _votes(table, labels) if "votes" in table.column_names else None)


def _votes(table: pa.Table, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Votes as shares; an image without one for any expression counts as its label."""
    flat = pc.list_flatten(table.column("votes")).to_numpy()
    counts = flat.astype(np.float32).reshape(len(labels), -1)
    silent = counts.sum(axis=1) == 0
    counts[silent] = np.eye(counts.shape[1], dtype=np.float32)[labels[silent]]
    return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float32)


def _pixels(chunk: pa.Array[Any], size_px: int) -> npt.NDArray[np.uint8]:
    """A binary column as uint8 [N, size, size], without a Python object an image."""
    _, offset_buffer, byte_buffer = chunk.buffers()
    assert offset_buffer is not None
    assert byte_buffer is not None
    offsets = np.frombuffer(memoryview(offset_buffer), dtype=np.int32)
    offsets = offsets[chunk.offset : chunk.offset + len(chunk) + 1]
    if not (np.diff(offsets) == size_px * size_px).all():
        raise DataError(f"an image of the data set has not {size_px} x {size_px} bytes")
    data = np.frombuffer(memoryview(byte_buffer), dtype=np.uint8)[offsets[0] : offsets[-1]]
    return np.asarray(data.reshape(-1, size_px, size_px))


def map_classes(
    split: Split, class_names: tuple[str, ...], classes: str | dict[str, str | None]
) -> tuple[Split, tuple[str, ...]]:
    """Apply `data.classes`: rename, merge and drop.

    Returns:
        the split with new labels, and the new names.
    """
    mapping = class_map(classes, class_names)
    if mapping.names == class_names:
        return split, class_names
    return map_labels(split, mapping), mapping.names


def map_labels(split: Split, mapping: ClassMap) -> Split:
    """New labels for old ones; rows of dropped classes go, votes for them too."""
    labels = np.asarray(mapping.index, dtype=np.int64)[split.labels]
    kept = labels >= 0
    if kept.all() and mapping.index == tuple(range(len(mapping.names))):
        return split
    votes = None
    if split.votes is not None:
        votes = np.zeros((int(kept.sum()), len(mapping.names)), np.float32)
        for old, new in enumerate(mapping.index):
            if new >= 0:
                votes[:, new] += split.votes[kept, old]
        silent = votes.sum(axis=1) == 0
        votes[silent] = np.eye(len(mapping.names), dtype=np.float32)[labels[kept][silent]]
        votes /= votes.sum(axis=1, keepdims=True)
    return Split(split.images[kept], labels[kept], votes)
