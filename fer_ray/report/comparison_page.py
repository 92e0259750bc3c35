"""The page of `fer-ray compare`: one offline HTML file, without faces unless asked."""

from __future__ import annotations

import numpy as np

from fer_ray.evaluation.compare import Comparison, format_p, verdict
from fer_ray.report.evaluation_text import interval, openings_line, percent
from fer_ray.report.mistakes import WHY_FACELESS, Picture
from fer_ray.report.page import render
from fer_ray.report.pictures import data_uri

COMMAND = "compare"
NUM_PICTURES = 24
"""Of each gallery."""


def comparison_page(comparison: Comparison, *, with_images: bool) -> str:
    """The page as text.

    Args:
        comparison: its figures and, for the galleries, its images.
        with_images: show images on which one is right and the other wrong.
    """
    document = comparison.document
    galleries = []
    if with_images:
        galleries = [
            ("Only A is right", _EXPLANATION, _only_right(comparison, 0)),
            ("Only B is right", _EXPLANATION, _only_right(comparison, 1)),
        ]
    clean = document["clean"]
    return render(
        "comparison.html",
        COMMAND,
        doc=document,
        percent=percent,
        interval=interval,
        format_p=format_p,
        verdict=verdict(document),
        clean=verdict(clean) if clean and clean["images"] < document["count"] else None,
        openings=openings_line(document["test_openings"]),
        galleries=galleries,
        why_faceless=WHY_FACELESS,
    )


_EXPLANATION = "Those first where the two differ most in the probability of the true class."


def _only_right(comparison: Comparison, winner: int) -> list[Picture]:
    """Images that one alone has right, the clearest first."""
    split = comparison.split
    mine, other = comparison.probabilities[winner], comparison.probabilities[1 - winner]
    rows = np.arange(len(split.labels))
    alone = (mine.argmax(axis=1) == split.labels) & (other.argmax(axis=1) != split.labels)
    gain = mine[rows, split.labels] - other[rows, split.labels]
    order = np.argsort(-gain, kind="stable")
    result = []
    for row in order[alone[order]][:NUM_PICTURES]:
        truth, answer = int(split.labels[row]), int(other[row].argmax())
        said = f"{split.class_names[answer]} ({100 * other[row, answer]:.1f}\u00a0%)"
        result.append(
            Picture(
                data_uri(split.images[row]),
                (
                    f"is {split.class_names[truth]} ({100 * mine[row, truth]:.1f}\u00a0%)",
                    f"the other said {said}",
                ),
                split.sources[row],
            )
        )
    return result
