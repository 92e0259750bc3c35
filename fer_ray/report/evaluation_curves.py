"""Reliability diagram and risk-coverage curve as the geometry of small SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_ray.metrics import RiskCoverage

SIDE = 300.0
"""Both charts are squares of so many SVG units, y downwards."""
BAR_HEIGHT = 60.0
"""Of the bars of counts under the reliability diagram."""
MAX_POINTS = 400


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram, SVG units.

    Attributes:
        x: of the mean confidence.
        y: of the accuracy.
        top, bottom: of its interval.
        left, width: of the bin.
        bar: height of the bar of counts.
        title: shown when it is pointed at.
    """

    x: float
    y: float
    top: float
    bottom: float
    left: float
    width: float
    bar: float
    title: str


def reliability_bins(rows: Sequence[dict[str, Any]]) -> list[Bin]:
    """The bins that hold an answer.

    Args:
        rows: `reliability` of an evaluation's document.
    """
    highest = max(1, *(row["count"] for row in rows))
    result = []
    for row in rows:
        if not row["count"]:
            continue
        low, high = row["accuracy_interval"]
        result.append(
            Bin(
                x=_x(row["confidence"]),
                y=_y(row["accuracy"]),
                top=_y(high),
                bottom=_y(low),
                left=_x(row["low"]),
                width=round(SIDE * (row["high"] - row["low"]), 1),
                bar=round(BAR_HEIGHT * row["count"] / highest, 1),
                title=(
                    f"{row['count']:,} answers, mean confidence {100 * row['confidence']:.1f} %, "
                    f"right {100 * row['accuracy']:.1f} % "
                    f"({100 * low:.1f} to {100 * high:.1f})"
                ),
            )
        )
    return result


@dataclass(frozen=True)
class RiskChart:
    """The curve as the `d` of an SVG path, and its scale.

    Attributes:
        path: from the most certain answers to all.
        top: the error at the upper edge, a share.
        ticks: errors to label, shares.
    """

    path: str
    top: float
    ticks: tuple[float, ...]

    def y(self, risk: float) -> float:
        """SVG units of an error."""
        return round(SIDE * (1 - risk / self.top), 1)


def risk_chart(curve: RiskCoverage) -> RiskChart:
    """Draw at most `MAX_POINTS` of the curve, the last among them.

    Its first hundredth is left out where it is long: the error of a few answers is noise that would
    stretch the scale.
    """
    start = min(int(np.searchsorted(curve.coverage, 0.01)), len(curve.risk) - 1)
    chosen = np.unique(np.linspace(start, len(curve.risk) - 1, MAX_POINTS).round().astype(int))
    highest = float(curve.risk[chosen].max())
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.25) if 5 * s >= highest or s == 0.25)
    count = max(1, int(np.ceil(highest / step - 1e-9)))
    chart = RiskChart("", step * count, tuple(step * number for number in range(count + 1)))
    points = [(_x(float(curve.coverage[i])), chart.y(float(curve.risk[i]))) for i in chosen]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    return RiskChart(path, chart.top, chart.ticks)


def _x(share: float) -> float:
    return round(SIDE * share, 1)


def _y(share: float) -> float:
    return round(SIDE * (1 - share), 1)
