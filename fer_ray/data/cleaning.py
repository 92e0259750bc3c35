"""`fer-ray data check --drop-leaks --drop-duplicates`: a cleaned copy of a prepared set.

Only training images are dropped. Validation and test stay as they are, to the byte, so that a score
on them still compares with everyone else's; what a model must not have seen leaves its training.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray import __version__
from fer_ray.data.checking import Row, read_images, read_rows
from fer_ray.data.pixels import LEAST_STD, PixelFigures
from fer_ray.data.prepared import MANIFEST, TEST_OPENINGS, PreparedSet
from fer_ray.errors import DataError
from fer_ray.store import new_directory, require_absent, write_json

_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class CleanReport:
    """What a cleaning dropped, all of it from train.

    Attributes:
        path: the cleaned set.
        num_leaks: images identical to a validation or test image.
        num_conflicting: identical images with different labels, all of each group.
        num_duplicates: identical images beyond the first of each.
        verdict, fingerprint: of the cleaned set.
    """

    path: Path
    num_leaks: int
    num_conflicting: int
    num_duplicates: int
    verdict: str
    fingerprint: str

    @property
    def num_dropped(self) -> int:
        return self.num_leaks + self.num_conflicting + self.num_duplicates


def write_cleaned(
    prepared: PreparedSet, out: Path, *, drop_leaks: bool, drop_duplicates: bool
) -> CleanReport:
    """Write a cleaned copy, whole or not at all.

    Leaks go first; of what is left in train, groups of identical images with different labels go
    whole, and of every other group all but the first. The record of test openings goes along.

    Args:
        prepared: the set, checked before (the test split's opening is recorded there).
        out: the new directory.
        drop_leaks: drop training images identical to a validation or test image.
        drop_duplicates: drop conflicting groups, and surplus duplicates within train.

    Raises:
        DataError: nothing of the training split would be left.
        OutputExistsError: `out` is there.
    """
    require_absent(out, "the cleaned data set", "Choose another --out, or delete it first.")
    splits = list(prepared.info["counts"])
    rows = {split: read_rows(prepared, split) for split in splits}
    evaluated = {row.sha256 for split in splits if split != "train" for row in rows[split]}
    dropped = choose(
        rows["train"], evaluated, drop_leaks=drop_leaks, drop_duplicates=drop_duplicates
    )
    numbers = {number for chosen in dropped.values() for number in chosen}
    kept = [row for row in rows["train"] if row.number not in numbers]
    if not kept:
        raise DataError(f"nothing of the train split of {prepared.path} would be left")
    sizes = {name: len(chosen) for name, chosen in dropped.items()}
    with new_directory(out) as directory:
        for split in splits:
            if split != "train":
                for file in prepared.files(split):
                    shutil.copyfile(file, directory / file.name)
        openings = prepared.path / TEST_OPENINGS
        if openings.is_file():
            shutil.copyfile(openings, directory / TEST_OPENINGS)
        num_parts = _write_train(prepared, directory, numbers)
        everything = [*kept, *(row for split in splits if split != "train" for row in rows[split])]
        info = {
            **prepared.info,
            "fer_ray": __version__,
            "counts": {**prepared.info["counts"], "train": _counts(prepared, kept)},
            "parts": {**prepared.info["parts"], "train": num_parts},
            "surplus_duplicates": len(everything) - len({row.sha256 for row in everything}),
            "fingerprint": fingerprint_of(row.sample_id for row in everything),
            "verdict": _verdict(prepared, sizes),
            "cleaned": {
                **sizes,
                "from_fingerprint": prepared.fingerprint,
                "from_verdict": prepared.info["verdict"],
            },
        }
        write_json(directory / MANIFEST, _with_moments(directory, info))
    return CleanReport(path=out, verdict=info["verdict"], fingerprint=info["fingerprint"], **sizes)


def choose(
    train: list[Row], evaluated: set[str], *, drop_leaks: bool, drop_duplicates: bool
) -> dict[str, set[int]]:
    """Choose the training images to drop.

    Args:
        train: the rows of the training split.
        evaluated: hashes of the validation and test images.
        drop_leaks, drop_duplicates: see `write_cleaned`.

    Returns:
        `num_leaks`, `num_conflicting` and `num_duplicates` -> row numbers, none twice.
    """
    leaks = {row.number for row in train if drop_leaks and row.sha256 in evaluated}
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in train:
        if drop_duplicates and row.number not in leaks:
            groups[row.sha256].append(row)
    conflicting: set[int] = set()
    duplicates: set[int] = set()
    for group in groups.values():
        if len({row.label for row in group}) > 1:
            conflicting |= {row.number for row in group}
        else:
            first = min(group, key=lambda row: row.sample_id)
            duplicates |= {row.number for row in group if row is not first}
    return {"num_leaks": leaks, "num_conflicting": conflicting, "num_duplicates": duplicates}


def fingerprint_of(sample_ids: Iterable[str]) -> str:
    """sha256 over the sorted sample ids, as an import computes it."""
    return hashlib.sha256("\n".join(sorted(sample_ids)).encode()).hexdigest()


def _write_train(prepared: PreparedSet, directory: Path, dropped: set[int]) -> int:
    """Copy the training parts without the dropped rows; returns the number of parts."""
    num_parts, start = 0, 0
    for file in prepared.files("train"):
        with pq.ParquetFile(file) as parquet:
            numbers = np.arange(start, start + parquet.metadata.num_rows)
            keep = ~np.isin(numbers, list(dropped))
            start += len(numbers)
            if not keep.any():
                continue
            target = directory / f"part-train-{num_parts:05d}.parquet"
            with pq.ParquetWriter(target, parquet.schema_arrow, compression="zstd") as writer:
                offset = 0
                for batch in parquet.iter_batches(_ROWS_AT_ONCE):
                    mask = pa.array(keep[offset : offset + len(batch)])
                    writer.write_batch(batch.filter(mask))
                    offset += len(batch)
            num_parts += 1
    return num_parts


def _counts(prepared: PreparedSet, rows: list[Row]) -> dict[str, int]:
    counts = Counter(row.label for row in rows)
    return {name: counts[name] for name in prepared.class_names}


def _with_moments(directory: Path, info: dict[str, Any]) -> dict[str, Any]:
    """Mean and deviation of the training images that are left."""
    cleaned = PreparedSet(directory, info)
    figures = PixelFigures(len(cleaned.class_names))
    for images, labels in read_images(cleaned, "train"):
        figures.add(images, labels)
    return {**info, "train_mean": figures.mean, "train_std": max(figures.std, LEAST_STD)}


def _verdict(prepared: PreparedSet, sizes: dict[str, int]) -> str:
    words = {
        "num_leaks": "leaked into validation or test",
        "num_conflicting": "in groups with conflicting labels",
        "num_duplicates": "surplus duplicates",
    }
    dropped = ", ".join(f"{size:,} {words[name]}" for name, size in sizes.items() if size)
    return f"cleaned: {prepared.info['verdict']}, less training images: {dropped or 'none'}"
