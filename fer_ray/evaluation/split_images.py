"""The images that bundles are measured on: labels as the bundle knows them, and what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.prepared import (
    SPLITS,
    PreparedSet,
    map_labels,
    open_prepared,
    read_table,
    record_test_opening,
    split_of,
)
from fer_ray.errors import DataError, UserError
from fer_ray.labels import class_map

if TYPE_CHECKING:
    from fer_ray.bundle.contents import Contents
    from fer_ray.bundle.load import Bundle

EVALUATION_SPLITS = ("validation", "test")
NO_GROUP = "(none)"
"""How a row without a value in the group column is named."""

_NOT_GROUPS = ("image", "votes")


@dataclass(frozen=True)
class SplitImages:
    """A split in memory, in the order of its sample ids; rows of dropped classes are gone.

    Attributes:
        prepared: where it comes from.
        split: `validation` or `test`.
        class_names: C names, in the order of the bundle's logits.
        images: uint8 [N, H, W], 0-255.
        labels: int64 [N].
        sources: N paths or row names, as the import found them.
        in_train: bool [N], pixel-identical to an image of train.
        in_validation: bool [N], of the test split: pixel-identical to an image of validation.
        groups: N values of the group column, or None.
        openings: how often the test split has now been opened; 0 for validation.
    """

    prepared: PreparedSet
    split: str
    class_names: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    sources: tuple[str, ...]
    in_train: npt.NDArray[np.bool_]
    in_validation: npt.NDArray[np.bool_]
    groups: tuple[str, ...] | None
    openings: int

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """bool [N]: images that neither training nor the choice of the model saw."""
        return ~(self.in_train | self.in_validation)


def read_split_images(
    bundles: tuple[Bundle, ...],
    data: Path,
    split: str,
    command: str,
    group_column: str | None = None,
) -> SplitImages:
    """Read a split as one or several bundles see it.

    All that can be refused is refused before the test split is opened; then an opening a bundle is
    recorded, and only then are its files read.

    Raises:
        UserError: no such split's name.
        DataError: no such data, split or column, or the data's classes are not the bundles'.
    """
    if split not in EVALUATION_SPLITS:
        raise UserError(f"split is {' or '.join(EVALUATION_SPLITS)}, but got {split!r}")
    prepared = open_prepared(data)
    if prepared.count(split) == 0:
        have = ", ".join(name for name in SPLITS if prepared.count(name))
        raise DataError(f"{prepared.path} has no {split} split; it has {have}")
    mapping = class_map(_classes_of(bundles[0].contents), prepared.class_names)
    for bundle in bundles:
        other = class_map(_classes_of(bundle.contents), prepared.class_names)
        if other.names != bundle.contents.class_names:
            raise DataError(
                f"the data have the classes {', '.join(other.names)}, "
                f"but the bundle {', '.join(bundle.contents.class_names)}"
            )
        if other != mapping:
            raise DataError(
                "the bundles do not answer the same question: one has the classes "
                f"{', '.join(mapping.names)}, the other {', '.join(other.names)}, made of "
                "the data's in another way",
            )
        wanted_px = bundle.contents.recipe.source_px
        if wanted_px != prepared.size_px:
            raise DataError(
                f"{prepared.path} has images of {prepared.size_px} pixels, but the bundle takes "
                f"{wanted_px}",
                f"Import the source again with --size {wanted_px}.",
            )
    if group_column is not None:
        _require_column(prepared, split, group_column)
    openings = 0
    if split == "test":
        for bundle in bundles:
            openings = record_test_opening(prepared, command, bundle.id)
    columns = ["sample_id", "image", "label", "source", "sha256"]
    if group_column is not None and group_column not in columns:
        columns.append(group_column)
    table = read_table(prepared, split, columns)
    kept = np.asarray(mapping.index, np.int64)[table.column("label").to_numpy()] >= 0
    if not kept.any():
        raise DataError(f"no image of the {split} split is of a class that the bundle knows")
    table = table.filter(kept)
    mapped = map_labels(split_of(table, prepared.size_px), mapping)
    hashes = _texts(table, "sha256")
    return SplitImages(
        prepared=prepared,
        split=split,
        class_names=mapping.names,
        images=mapped.images,
        labels=mapped.labels,
        sources=tuple(_texts(table, "source")),
        in_train=_is_in(hashes, prepared, "train"),
        in_validation=_is_in(hashes, prepared, "validation" if split == "test" else None),
        groups=None if group_column is None else _groups(table.column(group_column).to_pylist()),
        openings=openings,
    )


def _classes_of(contents: Contents) -> Any:
    """The class map that a bundle was trained with."""
    return contents.lineage["config"]["data"]["classes"]


def _require_column(prepared: PreparedSet, split: str, column: str) -> None:
    """Look for the column without opening the test split: all splits have the same ones.

    Raises:
        DataError: there is none, or it cannot group.
    """
    look = next((name for name in ("train", "validation") if prepared.count(name)), split)
    names = pq.read_schema(prepared.files(look)[0]).names
    if column not in names or column in _NOT_GROUPS:
        usable = ", ".join(name for name in names if name not in _NOT_GROUPS)
        raise DataError(
            f"{prepared.path} has no column {column!r} to group by; it has {usable}",
            "`fer-ray data import --group-by` makes a column `group`.",
        )


def _is_in(hashes: list[str], prepared: PreparedSet, split: str | None) -> npt.NDArray[np.bool_]:
    """bool [N]: which images are pixel-identical to one of another split."""
    if split is None or not prepared.count(split):
        return np.zeros(len(hashes), np.bool_)
    table = read_table(prepared, split, ["sample_id", "sha256"])
    seen = set(_texts(table, "sha256"))
    return np.fromiter((digest in seen for digest in hashes), np.bool_, len(hashes))


def _texts(table: pa.Table, column: str) -> list[str]:
    """A column of strings; the schema allows no null in it."""
    return [str(value) for value in table.column(column).to_pylist()]


def _groups(values: list[Any]) -> tuple[str, ...]:
    return tuple(NO_GROUP if value is None else str(value) for value in values)
