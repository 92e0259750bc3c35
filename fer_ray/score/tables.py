"""Lists and tables as sources: text lists, CSV and Parquet with a column of paths or of images."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.sources.bounded import MAX_LINE_BYTES
from fer_ray.data.sources.remote import shown
from fer_ray.errors import UserError
from fer_ray.score.external_sort import sorted_unique
from fer_ray.score.folders import local_item
from fer_ray.score.items import Item, path_of

_BLOCK_BYTES = 1024 * 1024
SCHEMES = ("s3://", "gs://", "http://", "https://")


class ListSource:
    """Paths and URIs, one a line; NUL between them where the file holds a NUL (`find -print0`).

    Empty lines are passed over; relative paths are taken from the current directory.
    """

    rescans = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()

    def items(self, after: bytes) -> Iterator[Item]:
        names = (item for line in self._lines() if (item := item_of(path_of(line))) is not None)
        yield from (item for item in sorted_unique(names) if item.key > after)

    def _lines(self) -> Iterator[bytes]:
        with Path(self.path).open("rb") as file:
            block = file.read(_BLOCK_BYTES)
            mark = b"\0" if b"\0" in block else b"\n"
            rest = b""
            while block:
                *whole, rest = (rest + block).split(mark)
                yield from whole
                if len(rest) > MAX_LINE_BYTES:
                    raise UserError(f"{self.path} has a line above {MAX_LINE_BYTES:,} bytes")
                block = file.read(_BLOCK_BYTES)
            yield rest


def item_of(text: str) -> Item | None:
    """An item of a line or a cell: a URI as it is, a path made absolute; None of an empty one.

    Raises:
        UserError: a scheme that is not read.
    """
    text = text.rstrip("\r")
    if not text.strip():
        return None
    if "://" in text:
        if not text.lower().startswith(SCHEMES):
            raise UserError(
                f"{shown(text)[:200]}: lists may hold paths, {', '.join(SCHEMES)}",
            )
        return Item(text)
    return local_item(os.path.abspath(text))


class TableSource:
    """A CSV or Parquet file with a column of paths.

    Args:
        path: the table.
        column: of the paths.
        keep: columns that go along into the rows.
    """

    rescans = True

    def __init__(self, path: str, column: str, keep: Sequence[str]) -> None:
        self.path, self.column, self.keep = path, column, tuple(keep)
        self.skipped: Counter[str] = Counter()
        self.kept = kept_columns(path, column, keep)

    def items(self, after: bytes) -> Iterator[Item]:
        yield from (item for item in sorted_unique(self._all()) if item.key > after)

    def _all(self) -> Iterator[Item]:
        for batch in batches(self.path, [self.column, *self.keep]):
            places, *others = (plain(column).to_pylist() for column in batch.columns)
            for place, *kept in zip(places, *others, strict=True):
                item = None if place is None else item_of(str(place))
                if item is None:
                    self.skipped["no_path"] += 1
                else:
                    yield Item(item.path, item.size_bytes, item.version, None, None, tuple(kept))


class BytesSource:
    """A Parquet file that holds the images themselves; an item is `FILE#row`, counted from 0."""

    rescans = True

    def __init__(self, path: str, column: str, keep: Sequence[str]) -> None:
        self.path, self.column, self.keep = path, column, tuple(keep)
        self.skipped: Counter[str] = Counter()
        if not path.lower().endswith(".parquet"):
            raise UserError(f"{path}: --bytes-column wants Parquet")
        self.kept = kept_columns(path, column, keep)
        found = pq.read_schema(path).field(column).type
        if not (pa.types.is_binary(found) or pa.types.is_large_binary(found)):
            raise UserError(f"{path}: the column {column} holds {found}, not bytes")

    def items(self, after: bytes) -> Iterator[Item]:
        version = str(os.stat(self.path).st_mtime_ns)  # noqa: PTH116
        row = 0
        file = pq.ParquetFile(self.path)
        if not self.keep:
            for row in range(file.metadata.num_rows):
                item = self._item(row, version, ())
                if item.key > after:
                    yield item
            return
        for batch in file.iter_batches(columns=list(self.keep)):
            columns = [plain(batch.column(name)).to_pylist() for name in self.keep]
            for kept in zip(*columns, strict=True):
                item = self._item(row, version, kept)
                row += 1
                if item.key > after:
                    yield item

    def _item(self, row: int, version: str, kept: tuple[Any, ...]) -> Item:
        # Twelve digits: the order of names is that of rows.
        name = f"{self.path}#{row:012d}"
        return Item(name, None, version, f"{self.path}#{self.column}", str(row), kept)


def kept_columns(path: str, column: str, keep: Sequence[str]) -> pa.Schema:
    """Types of the columns `keep` as rows keep them; `column` must be there too.

    Raises:
        UserError: no such file or column; names what there is.
    """
    try:
        if path.lower().endswith(".parquet"):
            schema = pq.read_schema(path)
        else:
            with _opened_text(path) as file:
                header = next(csv.reader(file), [])
            schema = pa.schema([pa.field(name, pa.string()) for name in header])
    except (OSError, pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error
    missing = [name for name in (column, *keep) if name not in schema.names]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(schema.names)}",
            "Name them with --path-column, --bytes-column and --keep-columns.",
        )
    return pa.schema([pa.field(name, _kept_type(schema.field(name).type)) for name in keep])


def _kept_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_integer(found) or pa.types.is_boolean(found):
        return found
    if pa.types.is_floating(found):
        return pa.float64() if found == pa.float64() else pa.float32()
    return pa.string()


def plain(column: pa.Array[Any]) -> pa.Array[Any]:
    """A column in the type that rows keep it in: numbers and truth values, all else as text."""
    wanted = _kept_type(column.type)
    if column.type == wanted:
        return column
    cast: pa.Array[Any] = column.cast(wanted)
    return cast


def batches(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A table in pieces; of a CSV every column is text.

    Raises:
        UserError: it cannot be read to its end.
    """
    try:
        if path.lower().endswith(".parquet"):
            yield from (
                batch.select(list(columns))
                for batch in pq.ParquetFile(path).iter_batches(columns=list(columns))
            )
        else:
            yield from _csv_batches(path, columns)
    except (OSError, pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error


def _csv_batches(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _opened_text(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        places = [header.index(name) for name in columns]
        rows: list[list[str | None]] = []
        for row in reader:
            if row:
                rows.append([row[place] if place < len(row) else None for place in places])
            if len(rows) == 10_000:
                yield _text_batch(rows, columns)
                rows = []
        if rows:
            yield _text_batch(rows, columns)


def _text_batch(rows: list[list[str | None]], columns: Sequence[str]) -> pa.RecordBatch:
    arrays = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _opened_text(path: str) -> contextlib.AbstractContextManager[IO[str]]:
    if path.lower().endswith(".gz"):
        binary = gzip.open(path, "rb")  # noqa: SIM115 - the text wrapper closes it
        return io.TextIOWrapper(binary, encoding="utf-8", newline="")
    return Path(path).open(encoding="utf-8-sig", newline="")


def spool(stream: IO[bytes], path: Path) -> None:
    """Copy a stream to a file in pieces, so that a resumed job can read it again."""
    with path.open("wb") as file:
        while block := stream.read(_BLOCK_BYTES):
            file.write(block)
