"""Numbers to the geometry of small SVG charts; the templates draw them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BAR_WIDTH = 180.0
"""Length of the longest bar, SVG units."""
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 512.0, 120.0


@dataclass(frozen=True)
class Bar:
    """One class of one split.

    Attributes:
        width: SVG units.
        published: where the published number lies, SVG units; None where there is none.
        text: beside the bar.
        title: shown when it is pointed at.
    """

    name: str
    width: float
    published: float | None
    text: str
    title: str


def bars(row: dict[str, int], published: dict[str, int]) -> list[Bar]:
    """The class distribution of a split, one bar a class.

    Args:
        row: class name -> images.
        published: likewise of FER2013; empty for another data set.
    """
    total = max(1, sum(row.values()))
    longest = max([1, *row.values(), *published.values()])
    result = []
    for name, number in row.items():
        wanted = published.get(name)
        title = f"{name}: {number:,} of {total:,} images"
        if wanted is not None:
            title += f"; published: {wanted:,}"
        result.append(
            Bar(
                name=name,
                width=round(BAR_WIDTH * number / longest, 1),
                published=None if wanted is None else round(BAR_WIDTH * wanted / longest, 1),
                text=f"{number:,} ({100 * number / total:.1f} %)",
                title=title,
            )
        )
    return result


def histogram_path(histogram: npt.NDArray[np.int64]) -> str:
    """An area under 256 steps, as the `d` of an SVG path; the highest step fills the height.

    The two ends are left out of the scale: black and white saturate, and would flatten the rest.
    """
    inner = histogram[1:-1]
    highest = max(1, int(inner.max() if inner.any() else histogram.max()))
    step = HISTOGRAM_WIDTH / len(histogram)
    points = [f"M0 {HISTOGRAM_HEIGHT:g}"]
    for level, number in enumerate(histogram):
        top = HISTOGRAM_HEIGHT * (1 - min(1.0, int(number) / highest))
        points.append(f"L{level * step:g} {top:.1f}H{(level + 1) * step:g}")
    points.append(f"V{HISTOGRAM_HEIGHT:g}Z")
    return "".join(points)
