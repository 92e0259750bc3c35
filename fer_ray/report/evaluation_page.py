"""The page of `fer-ray evaluate`: one HTML file that needs no network, without faces unless asked.

Every name from the data (classes, files, groups) is text: Jinja escapes it, and the page's own
Content-Security-Policy lets nothing run or load.
"""

from __future__ import annotations

from typing import Any

from fer_ray.evaluation.on_split import Evaluation
from fer_ray.images.views import VIEWS
from fer_ray.report.evaluation_curves import BAR_HEIGHT, SIDE, reliability_bins, risk_chart
from fer_ray.report.evaluation_text import (
    NUM_GROUPS,
    abstention_line,
    interval,
    openings_line,
    percent,
)
from fer_ray.report.mistakes import WHY_FACELESS, confident_mistakes, worst_mistakes
from fer_ray.report.page import render

COMMAND = "evaluate"


def evaluation_page(evaluation: Evaluation, *, with_images: bool) -> str:
    """The page as text.

    Args:
        evaluation: its figures and, for the galleries, its images.
        with_images: show the mistakes; else the page has no face.
    """
    document = evaluation.document
    galleries = []
    if with_images:
        shown = evaluation.split, evaluation.probabilities
        galleries = [
            ("The most confident mistakes", _CONFIDENT, confident_mistakes(*shown)),
            ("The worst mistakes of each class", _WORST, worst_mistakes(*shown)),
        ]
    return render(
        "evaluation.html",
        COMMAND,
        doc=document,
        percent=percent,
        interval=interval,
        views=VIEWS,
        matrix=_matrix(document),
        bins=reliability_bins(document["reliability"]),
        risk=risk_chart(evaluation.risk),
        side=SIDE,
        bar_height=BAR_HEIGHT,
        kept_risk=_kept_risk(document),
        abstention=abstention_line(document["abstention"]),
        openings=openings_line(document["test_openings"]),
        num_groups=NUM_GROUPS,
        galleries=galleries,
        why_faceless=WHY_FACELESS,
    )


_CONFIDENT = "Wrong answers with the highest score. Many are labels that people doubt too."
_WORST = "Those whose true class got the least probability."


def _matrix(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a true class; a cell has its count and its share of the row."""
    rows = []
    for row, counts in zip(document["classes"], document["confusion"], strict=True):
        total = max(1, row["count"])
        cells = [{"count": count, "share": count / total} for count in counts]
        rows.append({"label": row["label"], "count": row["count"], "cells": cells})
    return rows


def _kept_risk(document: dict[str, Any]) -> tuple[float, float] | None:
    """Coverage and error at the bundle's threshold; None where no answer is kept."""
    rule = document["abstention"]
    return None if rule["precision"] is None else (rule["coverage"], 1 - rule["precision"])
