"""`fer-ray data import`: a source of labelled images to a prepared data set.

    source -> records -> pixels -> rows, a writer a split -> manifest, last
                                    |
                                    +-> where the source names no (whole) split: rows wait in
                                        parts of their own and are divided in a second pass

Memory does not grow with the source but for some 100 bytes a distinct image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_ray import __version__
from fer_ray.data.decoding import decoded
from fer_ray.data.pixels import LEAST_STD
from fer_ray.data.prepared import FORMAT, MANIFEST, SPLITS
from fer_ray.data.recognise import Figures, recognise
from fer_ray.data.sources.detect import SourceOptions, open_source
from fer_ray.data.sources.record import Record, Source
from fer_ray.data.sources.remote import shown
from fer_ray.data.splitting import (
    CARVED_RATIOS,
    DEFAULT_RATIOS,
    Groups,
    Images,
    SplitPlan,
    parse_splits,
    spell,
)
from fer_ray.data.writing import Row, SplitWriter, fingerprint, schema_of
from fer_ray.errors import DataError
from fer_ray.store import new_directory, require_absent, write_json

_UNDIVIDED = "undivided"
_MAX_SKIPPED_TOLD = 1000


@dataclass
class ImportReport:
    """What an import made.

    Attributes:
        counts: split -> class name -> images.
        num_skipped: images left out as faulty, with `on_error="skip"`.
        skipped: (source name, reason) of the first 1,000 of them.
        verdict: what the set was recognised as.
        form: what the source was taken for.
        label_order: which number stood for which class, and why.
        splits: where the splits come from.
        notes: what else there is to know.
    """

    path: Path
    counts: dict[str, dict[str, int]]
    num_skipped: int
    skipped: list[tuple[str, str]]
    mean: float
    std: float
    surplus_duplicates: int
    fingerprint: str
    verdict: str
    form: str
    label_order: str
    splits: str
    notes: list[str]


def import_images(
    source: Path | str,
    out: Path,
    *,
    size_px: int,
    on_error: str,
    options: SourceOptions | None = None,
    splits: str = "auto",
) -> ImportReport:
    """Read every labelled image of a source and write the prepared set, whole or not at all.

    Args:
        source: a path, or a URI of object storage, in one of the forms of docs/data.md.
        out: the new directory.
        size_px: side of the stored images.
        on_error: `stop` or `skip` images that cannot be used.
        options: how to read the source.
        splits: see `splitting.parse_splits`.

    Raises:
        DataError: not such a source, a damaged archive, or a faulty image with `stop`.
        UserError: options that cannot be.
        OutputExistsError: `out` is there.
    """
    require_absent(out, "the data set", "Choose another OUT, or delete it first.")
    options = options or SourceOptions()
    plan = parse_splits(splits)
    with open_source(source, options) as opened, new_directory(out) as directory:
        building = _Import(directory, opened, plan, options, on_error)
        with decoded(opened.records, size_px) as records:
            for record, pixels, fault in records:
                if pixels is None:
                    building.skip(record, str(fault))
                else:
                    building.add(record, pixels.tobytes())
        building.divide(shown(str(source)))
        return building.finish(out, shown(str(source)), size_px)


@dataclass
class _Import:
    """One import on its way."""

    directory: Path
    source: Source
    plan: SplitPlan
    options: SourceOptions
    on_error: str
    images: Images = field(default_factory=Images)
    num_skipped: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    splits: str = "the source's own"
    _writers: dict[str, SplitWriter] = field(default_factory=dict)
    _first_of: dict[bool, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.class_names = self.source.labels.class_names
        self._indices = {name: index for index, name in enumerate(self.class_names)}
        self._schema = schema_of(
            self.class_names,
            group=self.options.group_by is not None,
            votes=self.options.votes is not None,
        )
        grouped = self.options.group_by is not None
        self._groups = Groups(len(self.class_names)) if grouped else None

    def skip(self, record: Record, fault: str) -> None:
        """Leave a faulty image out, or stop."""
        if self.on_error == "stop":
            raise DataError(
                f"{record.source} {fault}",
                "Mend or remove it, or use --on-error skip; the data set then says "
                "how many were left out.",
            )
        self.num_skipped += 1
        if len(self.skipped) < _MAX_SKIPPED_TOLD:
            self.skipped.append((record.source, fault))

    def add(self, record: Record, pixels: bytes) -> None:
        """Take a decoded image in."""
        split = record.split if self.plan.ratios is None else None
        self._check_split(record, split)
        row = Row(pixels, self._indices[record.label], record.source, record.group, record.votes)
        digest = row.digest
        # A source without validation gives a part of its train: known only at its end.
        divisible = split in (None, "train")
        self.images.add(digest[:16], row.label, divisible=divisible)
        if self._groups is not None:
            assert record.group is not None
            self._groups.add(record.group, digest[:16], row.label, split)
        self._writer(split or _UNDIVIDED).add(row, digest)

    def _check_split(self, record: Record, split: str | None) -> None:
        self._first_of.setdefault(split is None, record.source)
        if len(self._first_of) == 2:
            raise DataError(
                f"{self._first_of[True]} has no split, but {self._first_of[False]} has one",
                "Use --splits 80:10:10 to make them for all images.",
            )

    def _writer(self, split: str) -> SplitWriter:
        if split not in self._writers:
            self._writers[split] = SplitWriter(
                self.directory, split, self._schema, self.class_names
            )
        return self._writers[split]

    # --- splits -----------------------------------------------------------------------------------

    def divide(self, source: str) -> None:
        """Make the splits that the source has not."""
        for writer in self._writers.values():
            writer.close()
        if _UNDIVIDED in self._writers:
            if self.plan.official_only:
                raise DataError(
                    f"{source} names no splits, but --splits official wants its own",
                    "Use --splits auto, or ratios such as 80:10:10.",
                )
            ratios = self.plan.ratios or DEFAULT_RATIOS
            ignored = " (its own, where it has any, are not used)" if self.plan.ratios else ""
            self._divide(self._writers.pop(_UNDIVIDED), ratios)
            self.splits = f"made: {spell(ratios)}{ignored}"
        else:
            self._check_groups()
            if "train" in self._writers and "validation" not in self._writers:
                self._carve(source)
        if self.splits.startswith("made"):
            together = "groups" if self._groups is not None else "copies of an image"
            self.splits += f"; by the images' sha256, stratified, {together} kept together"

    def _carve(self, source: str) -> None:
        """Validation out of train."""
        if self.plan.official_only:
            raise DataError(
                f"{source} has no validation images, but --splits official wants its own",
                "Use --splits auto: a tenth of train then becomes validation.",
            )
        train = self._writers.pop("train")
        for number, path in enumerate(train.files()):
            path.rename(path.with_name(f"part-{_UNDIVIDED}-{number:05d}.parquet"))
        train.split = _UNDIVIDED
        self._divide(train, CARVED_RATIOS)
        self.splits = f"made: validation out of train ({spell(CARVED_RATIOS)})"

    def _divide(self, undivided: SplitWriter, ratios: tuple[float, float, float]) -> None:
        by_group = self._groups.divide(ratios) if self._groups is not None else None
        by_image = self.images.divide(ratios) if by_group is None else {}
        for row in undivided.take_back():
            digest = row.digest
            index = by_image[digest[:16]] if by_group is None else by_group[str(row.group)]
            self._writer(SPLITS[index]).add(row, digest)
        for writer in self._writers.values():
            writer.close()

    def _check_groups(self) -> None:
        straddling = self._groups.straddling() if self._groups is not None else []
        if straddling:
            told = "; ".join(f"{group!r}: {' and '.join(found)}" for group, found in straddling[:3])
            raise DataError(
                f"{len(straddling):,} group(s) of --group-by stand in several of the source's own "
                f"splits, such as {told}",
                "Use --splits 80:10:10 to make splits that keep groups together.",
            )

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, out: Path, source: str, size_px: int) -> ImportReport:
        """Write the manifest."""
        labels, notes = self.source.labels, self.source.notes
        counts = {
            split: {
                name: self._writers[split].counts[index]
                for index, name in enumerate(self.class_names)
            }
            for split in SPLITS
            if split in self._writers
        }
        self._check_counts(counts, source)
        if labels.dropped:
            notes.append(f"{labels.dropped:,} image(s) of classes left out by --classes")
        pixels = self._writers["train"].figures
        mean, std = pixels.mean, max(pixels.std, LEAST_STD)
        verdict = recognise(
            Figures(
                counts=counts,
                size_px=size_px,
                mean=mean,
                std=std,
                unevenness=pixels.unevenness,
                detail=pixels.detail,
                surplus_duplicates=self.images.surplus,
                num_skipped=self.num_skipped,
            )
        )
        report = ImportReport(
            path=out,
            counts=counts,
            num_skipped=self.num_skipped,
            skipped=self.skipped,
            mean=mean,
            std=std,
            surplus_duplicates=self.images.surplus,
            fingerprint=fingerprint(self._writers),
            verdict=verdict.text,
            form=self.source.form,
            label_order=labels.decision,
            splits=self.splits,
            notes=notes,
        )
        parts = {split: self._writers[split].parts for split in counts}
        write_json(self.directory / MANIFEST, self._document(report, parts, source, size_px))
        return report

    def _check_counts(self, counts: dict[str, dict[str, int]], source: str) -> None:
        for needed in ("train", "validation"):
            if needed not in counts:
                have = ", ".join(counts) or "none at all"
                why = f"; {self.num_skipped:,} were skipped" if self.num_skipped else ""
                raise DataError(
                    f"{source} has no {needed} images; it has {have}{why}",
                    "Kaggle's copy names its files Training_N, PublicTest_N (validation) and "
                    "PrivateTest_N (test); else use folders train/, validation/ and test/, or "
                    "--splits 80:10:10.",
                )

    def _document(
        self, report: ImportReport, parts: dict[str, int], source: str, size_px: int
    ) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "fer_ray": __version__,
            "class_names": list(self.class_names),
            "size_px": size_px,
            "counts": report.counts,
            "parts": parts,
            "train_mean": report.mean,
            "train_std": report.std,
            "surplus_duplicates": report.surplus_duplicates,
            "skipped": report.num_skipped,
            "fingerprint": report.fingerprint,
            "verdict": report.verdict,
            "source": Path(source).name,
            "form": report.form,
            "label_order": report.label_order,
            "splits": report.splits,
            "group_by": self.options.group_by,
            "votes": self.options.votes is not None,
            "notes": report.notes,
        }
