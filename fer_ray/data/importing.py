"""`fer-ray data import`: a source of labelled images to a prepared data set."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray import __version__
from fer_ray.data.known import verdict_of
from fer_ray.data.prepared import FORMAT, MANIFEST, SCHEMA, SPLITS
from fer_ray.data.sources import LabelledImage, open_source
from fer_ray.errors import DataError, DecodeError
from fer_ray.images.decode import decode
from fer_ray.labels import EXPRESSIONS
from fer_ray.store import new_directory, require_absent, write_json

_ROWS_A_PART = 20_000


@dataclass
class ImportReport:
    """What an import made.

    Attributes:
        counts: split -> class name -> images.
        skipped: (source name, reason) of images left out, with `on_error="skip"`.
        verdict: what the set was recognised as.
    """

    path: Path
    counts: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]
    mean: float
    std: float
    surplus_duplicates: int
    fingerprint: str
    verdict: str


def import_images(source: Path, out: Path, *, size_px: int, on_error: str) -> ImportReport:
    """Read every labelled image of a source and write the prepared set, whole or not at all.

    Args:
        source: a zip or a folder in Kaggle's layout.
        out: the new directory.
        size_px: side of the stored images.
        on_error: `stop` or `skip` images that cannot be decoded.

    Raises:
        DataError: not such a source, or a corrupt image with `stop`.
        OutputExistsError: `out` is there.
    """
    require_absent(out, "the data set", "Choose another OUT, or delete it first.")
    with open_source(source) as images, new_directory(out) as directory:
        writer = _Writer(directory, size_px)
        skipped = []
        for image in images:
            try:
                pixels = decode(image.read(), size_px).pixels
            except DecodeError as error:
                if on_error == "stop":
                    raise DataError(
                        f"{image.source} {error.message}",
                        "Mend or remove it, or use --on-error skip; the data set then says "
                        "how many were left out.",
                    ) from error
                skipped.append((image.source, error.message))
                continue
            writer.add(image, pixels)
        writer.close()
        return _finish(directory, out, writer, source, skipped)


def _finish(
    directory: Path, out: Path, writer: _Writer, source: Path, skipped: list[tuple[str, str]]
) -> ImportReport:
    counts = {
        split: {name: writer.counts[split][name] for name in EXPRESSIONS}
        for split in SPLITS
        if writer.counts[split]
    }
    for needed in ("train", "validation"):
        if needed not in counts:
            raise DataError(
                f"{source} has no {needed} images; it has {', '.join(counts) or 'none at all'}",
                "Kaggle's copy names its files Training_N, PublicTest_N (validation) and "
                "PrivateTest_N (test); else use folders train/, validation/ and test/.",
            )
    surplus = sum(number - 1 for number in writer.occurrences_of_pixels.values())
    mean, std = writer.moments()
    verdict = verdict_of(counts, mean, std, surplus, len(skipped))
    fingerprint = writer.fingerprint()
    document: dict[str, Any] = {
        "format": FORMAT,
        "fer_ray": __version__,
        "class_names": list(EXPRESSIONS),
        "size_px": writer.size_px,
        "counts": counts,
        "parts": {split: writer.parts[split] for split in counts},
        "train_mean": mean,
        "train_std": std,
        "surplus_duplicates": surplus,
        "skipped": len(skipped),
        "fingerprint": fingerprint,
        "verdict": verdict,
        "source": source.name,
    }
    write_json(directory / MANIFEST, document)
    return ImportReport(out, counts, skipped, mean, std, surplus, fingerprint, verdict)


@dataclass
class _Writer:
    """Rows to Parquet parts, a part at a time; sums for the manifest beside them."""

    directory: Path
    size_px: int
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    parts: Counter[str] = field(default_factory=Counter)
    occurrences_of_pixels: Counter[str] = field(default_factory=Counter)
    _occurrences: Counter[str] = field(default_factory=Counter)
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    _sum: int = 0
    _sum_of_squares: int = 0
    _num_pixels: int = 0

    def add(self, image: LabelledImage, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        self.occurrences_of_pixels[digest] += 1
        label = EXPRESSIONS.index(image.label)
        stem = f"{image.split}-{digest[:16]}-{label}"
        occurrence = self._occurrences[stem]
        self._occurrences[stem] += 1
        self.counts[image.split][image.label] += 1
        if image.split == "train":
            wide = pixels.astype(np.int64)
            self._sum += int(wide.sum())
            self._sum_of_squares += int((wide * wide).sum())
            self._num_pixels += wide.size
        rows = self._rows[image.split]
        rows.append(
            {
                "sample_id": f"{stem}-{occurrence}",
                "image": pixels.tobytes(),
                "label": label,
                "label_name": image.label,
                "source": image.source,
                "sha256": digest,
            }
        )
        if len(rows) >= _ROWS_A_PART:
            self._write(image.split)

    def close(self) -> None:
        for split in list(self._rows):
            if self._rows[split]:
                self._write(split)

    def _write(self, split: str) -> None:
        name = f"part-{split}-{self.parts[split]:05d}.parquet"
        schema = SCHEMA.with_metadata({"class_names": ",".join(EXPRESSIONS)})
        table = pa.Table.from_pylist(self._rows[split], schema=schema)
        pq.write_table(table, self.directory / name, compression="zstd")
        self.parts[split] += 1
        self._rows[split] = []

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, scaled to 0..1."""
        if not self._num_pixels:
            return 0.0, 1.0
        mean = self._sum / self._num_pixels
        variance = self._sum_of_squares / self._num_pixels - mean * mean
        return mean / 255.0, max(variance, 1e-6) ** 0.5 / 255.0

    def fingerprint(self) -> str:
        """sha256 over the sorted sample ids: the same images and labels, whatever their form."""
        ids: Iterable[str] = itertools.chain.from_iterable(
            (f"{stem}-{number}" for number in range(count))
            for stem, count in self._occurrences.items()
        )
        return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def table_text(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """The class table, a line a split."""
    names = list(next(iter(counts.values())))
    yield f"{'':<11}" + "".join(f"{name:>9}" for name in names) + f"{'total':>9}"
    for split, row in counts.items():
        cells = "".join(f"{row[name]:>9,}" for name in names)
        yield f"{split:<11}{cells}{sum(row.values()):>9,}"
