"""Galleries of mistakes: which images to show, and what to say under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_ray.evaluation.split_images import SplitImages
from fer_ray.report.pictures import data_uri

FloatArray = npt.NDArray[np.float64]

NUM_CONFIDENT = 24
NUM_WORST = 28
"""Shared out among the classes."""

WHY_FACELESS = (
    "No face is shown: a page is easily passed on, and the people on the images were not asked."
)


@dataclass(frozen=True)
class Picture:
    """An image of a gallery.

    Attributes:
        picture: its `data:` address.
        lines: in bold under it.
        source: where it comes from, small.
    """

    picture: str
    lines: tuple[str, ...]
    source: str


def confident_mistakes(split: SplitImages, probabilities: FloatArray) -> list[Picture]:
    """The wrong answers with the highest score, highest first."""
    answers, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-scores, kind="stable")
    chosen = order[answers[order] != split.labels[order]][:NUM_CONFIDENT]
    return [_picture(split, probabilities, int(row)) for row in chosen]


def worst_mistakes(split: SplitImages, probabilities: FloatArray) -> list[Picture]:
    """Of each true class the images whose true class got the least probability."""
    each = max(1, NUM_WORST // len(split.class_names))
    of_truth = probabilities[np.arange(len(split.labels)), split.labels]
    wrong = probabilities.argmax(axis=1) != split.labels
    result = []
    for label in range(len(split.class_names)):
        rows = np.flatnonzero(wrong & (split.labels == label))
        worst = rows[np.argsort(of_truth[rows], kind="stable")][:each]
        result += [_picture(split, probabilities, int(row)) for row in worst]
    return result[: 2 * NUM_WORST]


def _picture(split: SplitImages, probabilities: FloatArray, row: int) -> Picture:
    answer, truth = int(probabilities[row].argmax()), int(split.labels[row])
    return Picture(
        data_uri(split.images[row]),
        (
            f"is {split.class_names[truth]} ({100 * probabilities[row, truth]:.1f}\u00a0%)",
            f"said {split.class_names[answer]} ({100 * probabilities[row, answer]:.1f}\u00a0%)",
        ),
        split.sources[row],
    )
