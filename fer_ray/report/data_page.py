"""The page of `fer-ray data check`: one HTML file that needs no network.

Every name from the data (classes, files, paths) is text: Jinja escapes it, and the page's own
Content-Security-Policy lets nothing run or load. Images of the test split are never shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.data import known
from fer_ray.data.checking import CheckReport, Image, Row, pictures, read_rows
from fer_ray.data.prepared import PreparedSet
from fer_ray.labels import EXPRESSIONS
from fer_ray.report.charts import bars, histogram_path
from fer_ray.report.page import render, write_page
from fer_ray.report.pictures import contact_sheet, data_uri
from fer_ray.report.previews import previews

COMMAND = "data check"
SHEET_COLUMNS, SHEET_ROWS = 10, 6
NUM_EXAMPLES = 14
"""Of each fault."""


@dataclass(frozen=True)
class Fault:
    """One image (or several that are the same) with what is wrong about it."""

    picture: str
    lines: list[str]


def write_data_page(
    path: Path,
    prepared: PreparedSet,
    report: CheckReport,
    config: Config | None,
    *,
    with_images: bool,
) -> None:
    """Write the page of a check.

    Args:
        path: the HTML file.
        prepared: the data set, for its images.
        report: what the check found.
        config: whose augmentation to preview, or None.
        with_images: show faces; else the page has none.

    Raises:
        OutputExistsError: another file is there.
        UserError: it cannot be written.
    """
    write_page(path, data_page(prepared, report, config, with_images=with_images), COMMAND)


def data_page(
    prepared: PreparedSet, report: CheckReport, config: Config | None, *, with_images: bool
) -> str:
    """The page as text."""
    sheets: dict[str, list[Row]] = {name: [] for name in report.class_names}
    images: dict[str, Image] = {}
    if with_images:
        sheets = _choose(read_rows(prepared, "train"), report)
        examples = [
            *report.conflicting[:NUM_EXAMPLES],
            *report.leaked[:NUM_EXAMPLES],
            report.blank[:NUM_EXAMPLES],
        ]
        images = pictures(
            prepared, [row for group in [*sheets.values(), *examples] for row in group]
        )
    return render(
        "data.html",
        COMMAND,
        report=report,
        with_images=with_images,
        figures=report.figures,
        known=known,
        is_known=set(report.class_names) == set(EXPRESSIONS),
        published=_published(report),
        charts={
            split: bars(row, _published(report)[split]) for split, row in report.counts.items()
        },
        histogram=histogram_path(report.histogram),
        classes=_classes(report, sheets, images),
        conflicting=_faults(report.conflicting, images),
        leaked=_faults(report.leaked, images),
        blank=_faults(tuple((row,) for row in report.blank), images),
        config=config,
        previews=_previews(config, sheets, images),
    )


def _choose(train: list[Row], report: CheckReport) -> dict[str, list[Row]]:
    """The images of each class's contact sheet: first by sample id, which begins with the hash, so
    they are a fair sample and always the same. Images with a fault have their own place."""
    faulty = {row.sha256 for group in report.conflicting for row in group}
    faulty |= {row.sha256 for row in report.blank}
    sheets: dict[str, list[Row]] = {name: [] for name in report.class_names}
    seen = set(faulty)
    for row in sorted(train, key=lambda row: row.sample_id):
        sheet = sheets[row.label]
        if row.sha256 not in seen and len(sheet) < SHEET_COLUMNS * SHEET_ROWS:
            sheet.append(row)
            seen.add(row.sha256)
    return sheets


def _classes(
    report: CheckReport, sheets: dict[str, list[Row]], images: dict[str, Image]
) -> list[dict[str, Any]]:
    result = []
    for index, name in enumerate(report.class_names):
        chosen = [images[row.sha256] for row in sheets[name]]
        result.append(
            {
                "name": name,
                "example": data_uri(chosen[0]) if chosen else None,
                "mean": data_uri(report.mean_images[index])
                if report.counts["train"][name]
                else None,
                "sheet": data_uri(contact_sheet(chosen, SHEET_COLUMNS)) if chosen else None,
                "num_shown": len(chosen),
                "num_images": report.counts["train"][name],
            }
        )
    return result


def _faults(groups: tuple[tuple[Row, ...], ...], images: dict[str, Image]) -> list[Fault]:
    """Examples with the split and label of every copy, but for those only in the test split."""
    result = []
    for group in groups[:NUM_EXAMPLES]:
        image = images.get(group[0].sha256)
        if image is None:
            continue
        copies = Counter((row.split, row.label) for row in group)
        lines = [
            f"{split}: {label}" + (f" x\u00a0{number}" if number > 1 else "")
            for (split, label), number in copies.items()
        ]
        result.append(Fault(data_uri(image), [*lines, group[0].source]))
    return result


def _published(report: CheckReport) -> dict[str, dict[str, int]]:
    """Split -> class -> images of FER2013; empty rows where the classes are others."""
    if set(report.class_names) != set(EXPRESSIONS):
        return {split: {} for split in report.counts}
    return {
        split: dict(zip(EXPRESSIONS, known.COUNTS[split], strict=True)) for split in report.counts
    }


def _previews(
    config: Config | None, sheets: dict[str, list[Row]], images: dict[str, Image]
) -> list[dict[str, Any]]:
    if config is None:
        return []
    firsts = {name: images[rows[0].sha256] for name, rows in sheets.items() if rows}
    made = previews(config, list(firsts.values()))
    return [
        {
            "name": name,
            "original": data_uri(preview.original),
            "augmented": [data_uri(image) for image in preview.augmented],
        }
        for name, preview in zip(firsts, made, strict=True)
    ]
