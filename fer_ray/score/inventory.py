"""S3 Inventory as a source: the bucket's names as S3 itself wrote them down, CSV or Parquet.

A `manifest.json` names the files of the inventory and, for CSV, their columns. It may lie in the
bucket or be a local copy of the inventory's folder. Delete markers and old versions are skipped.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.sources.remote import local_copy
from fer_ray.errors import UserError
from fer_ray.score.external_sort import sorted_unique
from fer_ray.score.folders import is_image_name
from fer_ray.score.items import Item, key_of
from fer_ray.store import read_json

_NAMES = {
    "Bucket": "bucket",
    "Key": "key",
    "Size": "size",
    "ETag": "e_tag",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
}
"""Columns of a CSV inventory to those of a Parquet one."""


class InventorySource:
    """The images of one inventory, as `s3://bucket/key`.

    Args:
        place: its manifest.json, a path or an `s3://` address.

    Raises:
        UserError: the manifest is not one of S3 Inventory's, or of a format that is not read.
    """

    rescans = True

    def __init__(self, place: str) -> None:
        self.place = place
        self.skipped: Counter[str] = Counter()
        with self._local(place) as manifest:
            document = read_json(manifest)
        try:
            self._format = str(document["fileFormat"]).lower()
            self._columns = [name.strip() for name in str(document["fileSchema"]).split(",")]
            self._files = [str(file["key"]) for file in document["files"]]
            self._store = str(document["destinationBucket"]).removeprefix("arn:aws:s3:::")
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{place} is no manifest of S3 Inventory: {error!r} is missing"
            ) from error
        if self._format not in ("csv", "parquet"):
            raise UserError(f"{place}: an inventory in {self._format}; CSV and Parquet are read")

    def items(self, after: bytes) -> Iterator[Item]:
        yield from (item for item in sorted_unique(self._all()) if item.key > after)

    def _all(self) -> Iterator[Item]:
        for key in self._files:
            with self._local(self._data_file(key)) as path:
                read = self._csv if self._format == "csv" else _parquet
                for row in read(path):
                    item = self._item(row)
                    if item is not None:
                        yield item

    def _item(self, row: Mapping[str, Any]) -> Item | None:
        if _is(row, "is_delete_marker", False) or not _is(row, "is_latest", True):
            self.skipped["old_version"] += 1
            return None
        key = str(row["key"])
        if not is_image_name(key_of(key)):
            self.skipped["other_name"] += 1
            return None
        size = row.get("size")
        etag = row.get("e_tag")
        return Item(
            f"s3://{row['bucket']}/{key}", int(size) if size else None, str(etag) if etag else None
        )

    def _csv(self, path: Path) -> Iterator[dict[str, Any]]:
        names = [_NAMES.get(name, name) for name in self._columns]
        with gzip.open(path, "rb") as packed, io.TextIOWrapper(packed, "utf-8", newline="") as file:
            for values in csv.reader(file):
                row: dict[str, Any] = dict(zip(names, values, strict=True))
                row["key"] = unquote_plus(row["key"])  # S3 writes them URL-encoded
                yield row

    def _data_file(self, key: str) -> str:
        """Where a file of the inventory lies: in its bucket, or beside a local manifest."""
        if "://" in self.place:
            options = self.place.partition("?")[2]
            return f"s3://{self._store}/{key}" + (f"?{options}" if options else "")
        manifest = Path(self.place).absolute()
        beside = [manifest.parent.parent / "data" / Path(key).name]
        beside += [parent / key for parent in manifest.parents]
        for path in beside:
            if path.is_file():
                return str(path)
        raise UserError(
            f"{self.place} names {key}, which does not lie beside it",
            "Copy the inventory's whole folder, its data/ included.",
        )

    def _local(self, place: str) -> contextlib.AbstractContextManager[Path]:
        return local_copy(place) if "://" in place else contextlib.nullcontext(Path(place))


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _is(row: Mapping[str, Any], name: str, default: bool) -> bool:
    value = row.get(name)
    if value is None:
        return default
    return value is True or str(value).lower() == "true"
