"""`fer-ray data check`: what a prepared set is, and what is wrong with it.

One streaming pass over the images of train and validation. Of the test split only the columns
`sample_id`, `sha256`, `label_name` and `source` are read, never an image: that is enough to find
duplicates, conflicts and leaks, and the opening is written down like every other.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.pixels import BLANK_STD, PixelFigures
from fer_ray.data.prepared import SPLITS, PreparedSet, record_test_opening, split_of
from fer_ray.data.recognise import Figures, Verdict, pixel_findings, recognise
from fer_ray.errors import DataError

Image = npt.NDArray[np.uint8]

_COLUMNS = ["sample_id", "sha256", "label_name", "source"]
_IMAGES_AT_ONCE = 2048
_CLEANED_TOLERANCE = 0.01
"""Of mean and deviation of full scale: dropping some images moves them a little."""


@dataclass(frozen=True)
class Row:
    """One image, named.

    Attributes:
        number: its place in the split's files.
    """

    split: str
    number: int
    sample_id: str
    sha256: str
    label: str
    source: str


@dataclass(frozen=True)
class Duplicates:
    """Pixel-identical images.

    Attributes:
        num_distinct: different images over all splits.
        surplus: images beyond the first of each, over all splits.
        within: split -> images beyond the first of each in that split.
        num_conflicting_groups: groups of identical images with more than one label.
        num_conflicting_images: images in them.
    """

    num_distinct: int
    surplus: int
    within: dict[str, int]
    num_conflicting_groups: int
    num_conflicting_images: int


@dataclass(frozen=True)
class Leak:
    """Images of an evaluation split that a training saw, or chose by.

    Attributes:
        split: `validation` or `test`.
        num_images: of the split.
        num_in_train: pixel-identical to a training image.
        num_in_validation: of the test split, pixel-identical to a validation image.
        num_clean: identical to neither.
    """

    split: str
    num_images: int
    num_in_train: int
    num_in_validation: int
    num_clean: int


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        figures: the evidence behind the verdict.
        recorded_verdict: what the import said.
        blanks: split -> images with a deviation below 1 grey level. In the test split, whose pixels
            are not read: those of one single grey value, or identical to a blank one elsewhere.
        test_openings: how often the test split has been opened, this check included.
        histogram: int64 [256], training pixels a grey level.
        mean_images: uint8 [C, H, W], the mean training image of each class.
        conflicting, leaked, blank: the rows behind the counts; groups of identical images each.
    """

    path: Path
    class_names: tuple[str, ...]
    fingerprint: str
    figures: Figures
    verdict: Verdict
    recorded_verdict: str
    duplicates: Duplicates
    leaks: tuple[Leak, ...]
    blanks: dict[str, int]
    test_openings: int
    histogram: npt.NDArray[np.int64]
    mean_images: npt.NDArray[np.uint8]
    conflicting: tuple[tuple[Row, ...], ...]
    leaked: tuple[tuple[Row, ...], ...]
    blank: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        return self.figures.counts

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: every figure, and the names of the images behind the faults."""
        return {
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "verdict": asdict(self.verdict),
            "recorded_verdict": self.recorded_verdict,
            "figures": asdict(self.figures),
            "duplicates": asdict(self.duplicates),
            "leaks": [asdict(leak) for leak in self.leaks],
            "blanks": self.blanks,
            "test_openings": self.test_openings,
            "conflicting_images": [[row.sample_id for row in group] for group in self.conflicting],
            "leaked_images": [[row.sample_id for row in group] for group in self.leaked],
            "blank_images": [row.sample_id for row in self.blank],
        }


def check_prepared(prepared: PreparedSet) -> CheckReport:
    """Look at every image of train and validation, and at the hashes and labels of test.

    Raises:
        DataError: a part is missing or damaged, or an image is not the one its hash was taken of.
    """
    splits = [split for split in SPLITS if prepared.count(split)]
    openings = record_test_opening(prepared, "data check", "-") if "test" in splits else 0
    rows = {split: read_rows(prepared, split) for split in splits}
    groups = _groups(rows)
    blank_hashes = _constant_hashes(prepared.size_px)
    figures = {
        split: PixelFigures(len(prepared.class_names)) for split in splits if split != "test"
    }
    for split in figures:
        blank_hashes |= _look(prepared, split, rows[split], figures[split])
    train = figures["train"]
    evidence = Figures(
        counts={split: _class_counts(prepared, rows[split]) for split in splits},
        size_px=prepared.size_px,
        mean=train.mean,
        std=train.std,
        unevenness=train.unevenness,
        detail=train.detail,
        surplus_duplicates=sum(len(group) - 1 for group in groups),
        num_skipped=int(prepared.info.get("skipped", 0)),
    )
    conflicting = tuple(group for group in groups if len({row.label for row in group}) > 1)
    blank = [row for split in splits for row in rows[split] if row.sha256 in blank_hashes]
    return CheckReport(
        path=prepared.path,
        class_names=prepared.class_names,
        fingerprint=prepared.fingerprint,
        figures=evidence,
        verdict=_verdict(prepared, evidence),
        recorded_verdict=str(prepared.info["verdict"]),
        duplicates=_duplicates(rows, evidence.surplus_duplicates, conflicting),
        leaks=_leaks(rows),
        blanks={split: sum(row.split == split for row in blank) for split in splits},
        test_openings=openings,
        histogram=train.histogram,
        mean_images=train.mean_images(),
        conflicting=conflicting,
        leaked=tuple(group for group in groups if len({row.split for row in group}) > 1),
        blank=tuple(blank),
    )


def read_rows(prepared: PreparedSet, split: str) -> list[Row]:
    """The rows of a split without their images, in the order of its files.

    Raises:
        DataError: a part is damaged, or there are not as many rows as the manifest says.
    """
    columns: list[list[Any]] = [[] for _ in _COLUMNS]
    for file in prepared.files(split):
        try:
            table = pq.read_table(file, columns=_COLUMNS)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read: {error}", "Import it again.") from error
        for values, name in zip(columns, _COLUMNS, strict=True):
            values.extend(table.column(name).to_pylist())
    if len(columns[0]) != prepared.count(split):
        raise DataError(
            f"{prepared.path} has {len(columns[0]):,} rows of the {split} split, but its manifest "
            f"names {prepared.count(split):,}",
            "Import it again.",
        )
    return [Row(split, number, *values) for number, values in enumerate(zip(*columns, strict=True))]


def read_images(prepared: PreparedSet, split: str) -> Iterator[tuple[Image, npt.NDArray[np.int64]]]:
    """Images uint8 [N, H, W] and labels int64 [N] in the order of the files, some at a time.

    Raises:
        DataError: a part is damaged.
    """
    for file in prepared.files(split):
        try:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(_IMAGES_AT_ONCE, columns=["image", "label"]):
                    part = split_of(pa.Table.from_batches([batch]), prepared.size_px)
                    yield part.images, part.labels
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read: {error}", "Import it again.") from error


def pictures(prepared: PreparedSet, rows: Iterable[Row]) -> dict[str, Image]:
    """The images of some rows by their hash: uint8 [H, W] each.

    Rows of the test split are left alone: they show only where another split has the same image.
    """
    wanted: dict[str, dict[int, str]] = defaultdict(dict)
    for row in rows:
        if row.split != "test":
            wanted[row.split][row.number] = row.sha256
    found = {}
    for split, numbers in wanted.items():
        start = 0
        for images, _ in read_images(prepared, split):
            for number in numbers.keys() & set(range(start, start + len(images))):
                found[numbers[number]] = images[number - start].copy()
            start += len(images)
    return found


def _look(prepared: PreparedSet, split: str, rows: list[Row], figures: PixelFigures) -> set[str]:
    """Measure the images of a split and compare their hashes; returns those of blank images."""
    blank: set[str] = set()
    start = 0
    for images, labels in read_images(prepared, split):
        part = rows[start : start + len(images)]
        for row, image in zip(part, images, strict=True):
            if hashlib.sha256(image).hexdigest() != row.sha256:
                raise DataError(
                    f"{prepared.path}: image {row.sample_id} ({row.source}) is not the one its "
                    "hash was taken of",
                    "The data set was changed after its import; import it again.",
                )
        stds = figures.add(images, labels)
        blank.update(part[index].sha256 for index in np.flatnonzero(stds < BLANK_STD))
        start += len(images)
    return blank


def _constant_hashes(size_px: int) -> set[str]:
    """sha256 of each image of one single grey value."""
    pixels = size_px * size_px
    return {hashlib.sha256(bytes([level]) * pixels).hexdigest() for level in range(256)}


def _class_counts(prepared: PreparedSet, rows: list[Row]) -> dict[str, int]:
    counts = dict.fromkeys(prepared.class_names, 0)
    for row in rows:
        if row.label not in counts:
            raise DataError(f"{prepared.path} has an image of an unknown class {row.label!r}")
        counts[row.label] += 1
    return counts


def _groups(rows: dict[str, list[Row]]) -> list[tuple[Row, ...]]:
    """Groups of at least two identical images, sorted by their hash."""
    by_hash: dict[str, list[Row]] = defaultdict(list)
    for part in rows.values():
        for row in part:
            by_hash[row.sha256].append(row)
    return [tuple(group) for _, group in sorted(by_hash.items()) if len(group) > 1]


def _duplicates(
    rows: dict[str, list[Row]], surplus: int, conflicting: tuple[tuple[Row, ...], ...]
) -> Duplicates:
    return Duplicates(
        num_distinct=sum(map(len, rows.values())) - surplus,
        surplus=surplus,
        within={
            split: len(part) - len({row.sha256 for row in part}) for split, part in rows.items()
        },
        num_conflicting_groups=len(conflicting),
        num_conflicting_images=sum(map(len, conflicting)),
    )


def _leaks(rows: dict[str, list[Row]]) -> tuple[Leak, ...]:
    hashes = {split: {row.sha256 for row in part} for split, part in rows.items()}
    leaks = []
    for split in ("validation", "test"):
        if split not in rows:
            continue
        in_train = [row.sha256 in hashes["train"] for row in rows[split]]
        chosen_by = hashes["validation"] if split == "test" else set()
        in_validation = [row.sha256 in chosen_by for row in rows[split]]
        seen = sum(a or b for a, b in zip(in_train, in_validation, strict=True))
        size = len(rows[split])
        leaks.append(Leak(split, size, sum(in_train), sum(in_validation), size - seen))
    return tuple(leaks)


def _verdict(prepared: PreparedSet, evidence: Figures) -> Verdict:
    """The verdict; a cleaned set says so itself, and its pixels are judged as ever."""
    if "cleaned" not in prepared.info:
        return recognise(evidence)
    text = str(prepared.info["verdict"])
    of_pixels = [] if "not FER2013" in text else pixel_findings(evidence, _CLEANED_TOLERANCE)
    unsaid = [finding for finding in of_pixels if finding.split(" (")[0] not in text]
    return Verdict("cleaned", "; ".join([text, *unsaid]), tuple(of_pixels))
