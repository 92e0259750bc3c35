"""Hugging Face's Parquet: `image` as struct(bytes, path) or bytes, or `img_bytes`; `label(s)`.

The file's own class names (its `huggingface` metadata) say what a number means; without them
numbers count the sorted names, as Hugging Face's image folders do. The split stands in the file
name (`train-00000-of-00001.parquet`) or in its folder's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.sources.bounded import MAX_RATIO, SLACK_BYTES
from fer_ray.data.sources.grouping import Grouping
from fer_ray.data.sources.naming import SPLIT_OF_WORD, Labels, UnknownLabelError, split_of_name
from fer_ray.data.sources.record import Record, image_pixels
from fer_ray.errors import DataError

_IMAGE_COLUMNS = ("image", "img_bytes", "img", "image_bytes")
_LABEL_COLUMNS = ("label", "labels", "emotion", "label_name")
_ROWS_A_BATCH = 256


class ParquetImages:
    """One Parquet file of labelled images.

    Args:
        path: the file.
        name: its path inside the source.

    Raises:
        DataError: damaged, hostile, or without an image and a label column.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, memory_map=False)
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is no whole Parquet file: {error}", "It is damaged or cut off."
            ) from error
        self._check_ratio(path)
        self.columns = list(self._schema.names)
        self._image = self._one_of(_IMAGE_COLUMNS, "image")
        self._label = self._one_of(_LABEL_COLUMNS, "label")

    @property
    def split(self) -> str | None:
        """By the name of the file, else of the folder it stands in."""
        *folders, file = Path(self.name).parts
        by_folder = SPLIT_OF_WORD.get(folders[-1].lower()) if folders else None
        return split_of_name(file) or by_folder

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the label numbers in Hugging Face's metadata, if it has any."""
        raw = (self._schema.metadata or {}).get(b"huggingface")
        try:
            features = json.loads(raw)["info"]["features"] if raw else {}
            names = features[self._label]["names"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        whole = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
        return tuple(names) if whole else None

    def records(self, labels: Labels, grouping: Grouping | None) -> Iterator[Record]:
        """Records of the rows, which count from 1.

        Raises:
            DataError: the file is damaged further down, or a row has no group.
        """
        group = None if grouping is None else grouping.column(self.columns)
        if grouping is not None and group is None:
            grouping.require_pattern(self.name, self.columns)
        wanted = [self._image, self._label] + ([] if group is None else [self.columns[group]])
        number = 0
        try:
            for batch in self._file.iter_batches(batch_size=_ROWS_A_BATCH, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    record = self._record(number, row, labels)
                    if record is None:
                        continue
                    payload, path, label, fault = record
                    source = f"{self.name} row {number}" + (f" ({path})" if path else "")
                    name = None
                    if group is not None:
                        name = _group(row[self.columns[group]], source)
                    elif grouping is not None:
                        name = grouping.of_name(path or "")
                    yield Record(
                        source, self.split, label, payload, image_pixels, name, fault=fault
                    )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.name} cannot be read after row {number:,}: {error}",
                "It is damaged or cut off; get it again.",
            ) from error

    def _record(
        self, number: int, row: dict[str, Any], labels: Labels
    ) -> tuple[bytes, str | None, str, str | None] | None:
        """Bytes, path, class and fault of a row; None where its class is left out."""
        image: Any = row[self._image]
        path: str | None = None
        if isinstance(image, dict):
            path = str(image["path"]) if image.get("path") else None
            image = image.get("bytes")
        try:
            label = labels.of(str(row[self._label]))
        except UnknownLabelError as error:
            return b"", path, "", str(error)
        if label is None:
            return None
        fault = None if isinstance(image, bytes) else f"has no bytes in {self._image}"
        return image if isinstance(image, bytes) else b"", path, label, fault

    def _one_of(self, names: tuple[str, ...], what: str) -> str:
        plain = {column.strip().lower(): column for column in reversed(self.columns)}
        for name in names:
            if name in plain:
                return plain[name]
        raise DataError(
            f"{self.name} has no {what} column; it has {', '.join(self.columns)}",
            f"One of {', '.join(names)} is read.",
        )

    def _check_ratio(self, path: Path) -> None:
        metadata = self._file.metadata
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            columns = [group.column(number) for number in range(group.num_columns)]
            packed = sum(column.total_compressed_size for column in columns)
            unpacked = sum(column.total_uncompressed_size for column in columns)
            if unpacked > MAX_RATIO * packed + SLACK_BYTES:
                raise DataError(
                    f"{path} unpacks from {packed:,} to {unpacked:,} bytes in one row group; "
                    f"at most {MAX_RATIO} times are read"
                )


def _group(value: Any, source: str) -> str:
    if value is None or value == "":
        raise DataError(f"{source} has nothing in the column of --group-by")
    return str(value)
