"""What a data set is: FER2013 as published, or in which way it is not.

Two kinds of evidence. The class table says whether images are missing, exchanged or moved between
splits; the pixels say whether they were equalised, blurred or otherwise changed. Both are named.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fer_ray.data import known
from fer_ray.labels import EXPRESSIONS

EQUALISED_BELOW = 0.05
LOCALLY_EQUALISED_BELOW = 0.11
"""Unevenness; as published 0.125, see `fer_ray.data.pixels`."""
BLURRED_BELOW = 0.60
SHARP_ABOVE = 0.82
"""Detail; as published 0.74. JPEG of quality 90 lies at 0.85, of quality 50 at 0.63: the first is
named as changed, the second is not seen."""
_LIKELY_SHARE = 0.02
"""Largest difference of a class's share at which a smaller set still looks like FER2013."""
_LIKELY_MEAN = 0.02
_LOOSE_TOLERANCE = 0.01
"""Of mean and deviation where the training split is not the published one."""

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Figures:
    """The evidence.

    Attributes:
        counts: split -> class name -> images.
        size_px: side of the stored images.
        mean, std: of the training pixels, scaled to 0..1.
        unevenness, detail: of the training pixels; see `fer_ray.data.pixels`.
        surplus_duplicates: pixel-identical images beyond the first of each, over all splits.
        num_skipped: images left out at import.
    """

    counts: Counts
    size_px: int
    mean: float
    std: float
    unevenness: float
    detail: float
    surplus_duplicates: int
    num_skipped: int = 0


@dataclass(frozen=True)
class Verdict:
    """What the evidence says.

    Attributes:
        kind: `pristine`, `altered` (the pixels or labels), `re-split`, `truncated`, `cleaned` or
            `other` (not FER2013).
        text: in one line.
        findings: each alteration by itself.
    """

    kind: str
    text: str
    findings: tuple[str, ...]


def recognise(figures: Figures) -> Verdict:
    """Name what a data set is."""
    kind, of_counts = _judge_counts(figures)
    if kind == "other":
        return Verdict(kind, f"not FER2013 as published: {of_counts[0]}", tuple(of_counts))
    exact = kind in ("pristine", "altered")
    of_pixels = pixel_findings(figures, known.TOLERANCE if exact else _LOOSE_TOLERANCE)
    if kind == "pristine" and not of_pixels:
        of_pixels = _duplicate_findings(figures)
    findings = (*of_counts, *of_pixels)
    if not findings:
        without = "" if "test" in figures.counts else " without PrivateTest"
        return Verdict(kind, f"pristine FER2013{without}", ())
    kind = "altered" if kind == "pristine" else kind
    return Verdict(kind, f"{kind} FER2013: {'; '.join(findings)}", findings)


def pixel_findings(figures: Figures, tolerance: float) -> list[str]:
    """How the training pixels differ from the published ones.

    Args:
        figures: the evidence.
        tolerance: of mean and deviation, of full scale.
    """
    found = []
    if figures.unevenness < EQUALISED_BELOW:
        found.append(
            f"equalised (histograms are flat: unevenness {figures.unevenness:.3f} instead of "
            f"{known.TRAIN_UNEVENNESS})"
        )
    fine = f"fine detail {figures.detail:.2f} instead of {known.TRAIN_DETAIL:.2f}"
    if figures.size_px == known.SIZE_PX:
        if figures.detail < BLURRED_BELOW:
            found.append(f"blurred, or resized and back ({fine})")
        elif figures.detail > SHARP_ABOVE and not found:
            local = figures.unevenness < LOCALLY_EQUALISED_BELOW
            cause = "equalised in tiles, as CLAHE does" if local else "sharpened, noisy or repacked"
            found.append(f"{cause} ({fine})")
    moved = max(abs(figures.mean - known.TRAIN_MEAN), abs(figures.std - known.TRAIN_STD))
    if moved > tolerance and not found:
        found.append(
            f"other light: training pixels with mean {figures.mean:.4f} and deviation "
            f"{figures.std:.4f} instead of {known.TRAIN_MEAN} and {known.TRAIN_STD}"
        )
    return found


def _duplicate_findings(figures: Figures) -> list[str]:
    expected = (
        known.SURPLUS_DUPLICATES
        if "test" in figures.counts
        else known.SURPLUS_DUPLICATES_WITHOUT_TEST
    )
    if figures.surplus_duplicates == expected:
        return []
    found = f"{figures.surplus_duplicates:,} surplus duplicates instead of {expected:,}"
    return [f"images changed or exchanged: {found}"]


def _judge_counts(figures: Figures) -> tuple[str, list[str]]:
    """The kind of a set by its class table alone, and what to say of it."""
    strange = {name for row in figures.counts.values() for name in row} - set(EXPRESSIONS)
    if strange:
        return "other", [f"other classes ({', '.join(sorted(strange))})"]
    rows = {
        split: tuple(row.get(name, 0) for name in EXPRESSIONS)
        for split, row in figures.counts.items()
    }
    if all(row == known.COUNTS[split] for split, row in rows.items()):
        return "pristine", []
    if exchanged := _exchanged(rows):
        return "altered", [exchanged]
    if moved := _moved(rows):
        return "re-split", [moved]
    if missing := _missing(rows, figures):
        return "truncated", [missing]
    differing = [split for split, row in rows.items() if row != known.COUNTS[split]]
    return "other", [f"other class counts in {', '.join(differing)}{_skipped(figures)}"]


def _exchanged(rows: dict[str, tuple[int, ...]]) -> str | None:
    """Labels exchanged: the published numbers, in another order of the classes."""
    if any(sorted(row) != sorted(known.COUNTS[split]) for split, row in rows.items()):
        return None
    published = known.COUNTS["train"]
    pairs = [
        f"{EXPRESSIONS[published.index(number)]} stands as {name}"
        for name, number, wanted in zip(EXPRESSIONS, rows["train"], published, strict=True)
        if number != wanted
    ]
    return f"labels exchanged, as by a wrong label order: {', '.join(pairs)}"


def _moved(rows: dict[str, tuple[int, ...]]) -> str | None:
    """The published images of some splits, divided anew."""
    total = np.sum(list(rows.values()), axis=0)
    for size in (3, 2, 1):
        for chosen in itertools.combinations(known.COUNTS, size):
            if (total == np.sum([known.COUNTS[split] for split in chosen], axis=0)).all():
                sizes = ", ".join(f"{split} {sum(row):,}" for split, row in rows.items())
                official = ", ".join(f"{split} {sum(known.COUNTS[split]):,}" for split in chosen)
                return f"the {total.sum():,} images of the official {official} divided as {sizes}"
    return None


def _missing(rows: dict[str, tuple[int, ...]], figures: Figures) -> str | None:
    """Images missing, and enough left to say that it was FER2013."""
    if any(
        n > k for split, row in rows.items() for n, k in zip(row, known.COUNTS[split], strict=True)
    ):
        return None
    train, published = np.array(rows["train"]), np.array(known.COUNTS["train"])
    shares = np.abs(train / max(1, train.sum()) - published / published.sum())
    alike = shares.max() < _LIKELY_SHARE and abs(figures.mean - known.TRAIN_MEAN) < _LIKELY_MEAN
    if not (alike and train.sum() >= 1000) and not (train == published).any():
        return None
    parts = []
    for split, row in rows.items():
        short = [
            f"{name} {n:,} of {k:,}"
            for name, n, k in zip(EXPRESSIONS, row, known.COUNTS[split], strict=True)
            if n != k
        ]
        if short:
            classes = f" ({', '.join(short)})" if len(short) < len(EXPRESSIONS) else ""
            parts.append(f"{split} has {sum(row):,} of {sum(known.COUNTS[split]):,}{classes}")
    return f"{', '.join(parts)}{_skipped(figures)}"


def _skipped(figures: Figures) -> str:
    return f", {figures.num_skipped:,} skipped at import" if figures.num_skipped else ""
