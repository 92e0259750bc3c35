r"""What a job scores, one item at a time, and the files that hold a shard's items.

Items have one order everywhere: that of their paths as bytes. It is the order of object storage's
listings and of a folder's walk, so that listings are merged and continued without being held.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.store import replacing

KEPT = "kept."
"""Prefix of the user's own columns in an inputs file."""

_SKIPPED = b"fer_ray.skipped"


@dataclass(frozen=True, slots=True)
class Item:
    """One input.

    Attributes:
        path: absolute path or URI, unique in a job; bytes that are not UTF-8 as surrogates.
        size_bytes: as listed; None where the listing does not say.
        version: its time of change in ns, or its etag; None likewise.
        container: the archive or table that holds it, or None.
        member: where in the container.
        kept: values of the columns that go along.
    """

    path: str
    size_bytes: int | None = None
    version: str | None = None
    container: str | None = None
    member: str | None = None
    kept: tuple[Any, ...] = field(default=())

    @property
    def key(self) -> bytes:
        return key_of(self.path)


def key_of(path: str) -> bytes:
    """The bytes that a path is ordered by."""
    return path.encode("utf-8", "surrogateescape")


def path_of(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def readable_path(path: str) -> str:
    r"""A path as text: bytes that are not UTF-8 stand as \xNN."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return key_of(path).decode("utf-8", "backslashreplace")
    return path


def write_items(
    path: Path, items: Sequence[Item], kept: pa.Schema, skipped: dict[str, int]
) -> None:
    """Write a shard's items, atomically.

    Args:
        path: the inputs file.
        items: in order.
        kept: names and types of `Item.kept`.
        skipped: files passed over so far, by reason, since the job began.
    """
    columns: dict[str, pa.Array[Any]] = {
        "path": pa.array([item.key for item in items], pa.binary()),
        "size": pa.array([item.size_bytes for item in items], pa.int64()),
        "version": pa.array([item.version for item in items], pa.string()),
        "container": pa.array([_bytes(item.container) for item in items], pa.binary()),
        "member": pa.array([_bytes(item.member) for item in items], pa.binary()),
    }
    for index, column in enumerate(kept):
        values = [item.kept[index] for item in items]
        columns[KEPT + column.name] = pa.array(values, column.type)
    table = pa.table(columns).replace_schema_metadata({_SKIPPED: json.dumps(skipped)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_items(path: Path, start: int = 0, stop: int | None = None) -> list[Item]:
    """Items of an inputs file, or a slice of them."""
    table = pq.read_table(path)
    return items_of(table.slice(start, None if stop is None else stop - start))


def items_of(table: pa.Table) -> list[Item]:
    """Items of an inputs file's table."""
    kept = [name for name in table.column_names if name.startswith(KEPT)]
    columns = [table.column(name).to_pylist() for name in kept]
    values = list(zip(*columns, strict=True)) if columns else [()] * table.num_rows
    return [
        Item(path_of(path), size, version, _text(container), _text(member), kept_values)
        for path, size, version, container, member, kept_values in zip(
            table.column("path").to_pylist(),
            table.column("size").to_pylist(),
            table.column("version").to_pylist(),
            table.column("container").to_pylist(),
            table.column("member").to_pylist(),
            values,
            strict=True,
        )
    ]


def last_key(path: Path) -> bytes:
    """Key of the last item of an inputs file: where the listing goes on."""
    column = pq.read_table(path, columns=["path"]).column("path")
    key: bytes = column[len(column) - 1].as_py()
    return key


def skipped_so_far(path: Path) -> dict[str, int]:
    """What `write_items` was told."""
    metadata = pq.read_schema(path).metadata or {}
    counts: dict[str, int] = json.loads(metadata.get(_SKIPPED, b"{}"))
    return counts


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else key_of(text)


def _text(data: bytes | None) -> str | None:
    return None if data is None else path_of(data)
