"""The text of `fer-ray data check`."""

from __future__ import annotations

from collections.abc import Iterator

from fer_ray.data.checking import CheckReport
from fer_ray.data.cleaning import CleanReport


def check_lines(report: CheckReport) -> Iterator[str]:
    """What a check found, a line a thing."""
    yield from class_table(report.counts)
    figures = report.figures
    yield (
        f"training pixels: mean {figures.mean:.4f}, deviation {figures.std:.4f}, "
        f"unevenness {figures.unevenness:.3f}, fine detail {figures.detail:.2f}"
    )
    duplicates = report.duplicates
    within = ", ".join(f"{number:,} within {split}" for split, number in duplicates.within.items())
    yield (
        f"duplicates: {duplicates.surplus:,} surplus ({within}); "
        f"{duplicates.num_distinct:,} distinct images"
    )
    yield (
        f"conflicting labels: {duplicates.num_conflicting_groups:,} groups of identical images, "
        f"{duplicates.num_conflicting_images:,} images"
    )
    blanks = ", ".join(f"{number:,} in {split}" for split, number in report.blanks.items())
    yield f"blank images: {sum(report.blanks.values()):,} ({blanks})"
    for leak in report.leaks:
        also = f", {leak.num_in_validation:,} to one of validation" if leak.split == "test" else ""
        yield (
            f"leaks: {leak.num_in_train:,} of {leak.num_images:,} {leak.split} images are "
            f"identical to one of train{also}; clean size {leak.num_clean:,}"
        )
    if report.test_openings:
        yield (
            f"test split: opened {report.test_openings:,} times, this check included "
            "(labels and hashes, no image)"
        )
    else:
        yield "test split: none"
    yield f"verdict: {report.verdict.text}"


def clean_lines(report: CleanReport) -> Iterator[str]:
    """What a cleaning dropped."""
    yield (
        f"dropped from train: {report.num_dropped:,} images: {report.num_leaks:,} leaked, "
        f"{report.num_conflicting:,} with conflicting labels, "
        f"{report.num_duplicates:,} surplus duplicates"
    )
    yield f"cleaned set: {report.verdict}"


def class_table(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """The class table, a line a split."""
    names = list(next(iter(counts.values())))
    widths = [max(9, len(name) + 1) for name in names]
    header = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    yield f"{'':<11}{header}{'total':>9}"
    for split, row in counts.items():
        cells = "".join(f"{row[name]:>{width},}" for name, width in zip(names, widths, strict=True))
        yield f"{split:<11}{cells}{sum(row.values()):>9,}"
