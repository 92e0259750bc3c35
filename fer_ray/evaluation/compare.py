"""`fer-ray compare`: two bundles on the same images."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.predictor import Predictor
from fer_ray.evaluation.evaluate import figures, log_softmax
from fer_ray.evaluation.on_split import describe, require_views
from fer_ray.evaluation.paired import (
    ALPHA,
    difference_interval,
    mcnemar,
    smallest_difference,
)
from fer_ray.evaluation.split_images import SplitImages, read_split_images

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NUM_PAIRS = 12
"""Of the commonest pairs of different answers."""


@dataclass(frozen=True)
class Comparison:
    """Two bundles on the same images.

    Attributes:
        document: every figure, as `compare --json` prints it.
        split: the images.
        probabilities: float64 [N, C] of A and of B.
    """

    document: dict[str, Any]
    split: SplitImages
    probabilities: tuple[FloatArray, FloatArray]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return self.document


def compare_on_split(
    predictors: tuple[Predictor, Predictor], data: Path, split: str, *, views: str
) -> Comparison:
    """Compare A with B; see `fer_ray.api.compare`.

    Raises:
        UserError: no such split's name, or views that such images do not have.
        DataError: no such data or split, or the bundles' classes are not the data's and the same.
    """
    a, b = predictors
    for predictor in predictors:
        require_views(predictor, views)
    part = read_split_images((a.bundle, b.bundle), data, split, "compare")
    sides, found = [], []
    for predictor in predictors:
        temperature = predictor.bundle.contents.calibration.temperature
        logits = predictor.logits(part.images, views=views)
        found.append(np.exp(log_softmax(logits / temperature)))
        described = describe(predictor, part)
        sides.append(
            {
                **{key: described[key] for key in ("bundle", "inference")},
                **figures(logits, part.labels, part.class_names, temperature),
            }
        )
    answers = found[0].argmax(axis=1), found[1].argmax(axis=1)
    right = answers[0] == part.labels, answers[1] == part.labels
    clean = right[0][part.clean], right[1][part.clean]
    document = {
        "data": describe(a, part)["data"],
        "split": split,
        "test_openings": part.openings,
        "views": views,
        "count": len(part.labels),
        "majority_accuracy": sides[0]["majority_accuracy"],
        "majority_label": sides[0]["majority_label"],
        "a": sides[0],
        "b": sides[1],
        **_paired(*right),
        "clean": _paired(*clean) if len(clean[0]) else None,
        "same_answer": int((answers[0] == answers[1]).sum()),
        "classes": _classes(part, answers, right),
        "pairs": _pairs(part, answers),
    }
    return Comparison(document, part, (found[0], found[1]))


def _paired(right_a: BoolArray, right_b: BoolArray) -> dict[str, Any]:
    """The two by two table of at least one image, and what follows from it."""
    count = len(right_a)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    test = mcnemar(only_a, only_b)
    winner = None
    if test.p_value < ALPHA:
        winner = "a" if only_a > only_b else "b"
    return {
        "images": count,
        "both_right": int((right_a & right_b).sum()),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "both_wrong": int((~right_a & ~right_b).sum()),
        "difference": (only_a - only_b) / count,
        "difference_interval": list(difference_interval(only_a, only_b, count)),
        "mcnemar": {**asdict(test), "alpha": ALPHA},
        "smallest_difference": smallest_difference(only_a + only_b, count),
        "winner": winner,
    }


def _classes(
    part: SplitImages,
    answers: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    right: tuple[BoolArray, BoolArray],
) -> list[dict[str, Any]]:
    """One row a true class: who is right, and how often the two answer differently."""
    rows = []
    for index, name in enumerate(part.class_names):
        inside = part.labels == index
        a, b = right[0][inside], right[1][inside]
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        rows.append(
            {
                "label": name,
                "count": int(inside.sum()),
                "both_right": int((a & b).sum()),
                "only_a_right": only_a,
                "only_b_right": only_b,
                "both_wrong": int((~a & ~b).sum()),
                "different_answers": int((answers[0][inside] != answers[1][inside]).sum()),
                "p_value": mcnemar(only_a, only_b).p_value,
            }
        )
    return rows


def _pairs(
    part: SplitImages, answers: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
) -> list[dict[str, Any]]:
    """The commonest pairs of different answers, with who was right."""
    names = part.class_names
    total: Counter[tuple[int, int]] = Counter()
    right_a: Counter[tuple[int, int]] = Counter()
    right_b: Counter[tuple[int, int]] = Counter()
    for a, b, label in zip(*answers, part.labels, strict=True):
        if a != b:
            pair = int(a), int(b)
            total[pair] += 1
            right_a[pair] += int(a == label)
            right_b[pair] += int(b == label)
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:NUM_PAIRS]
    return [
        {
            "a": names[pair[0]],
            "b": names[pair[1]],
            "count": count,
            "a_right": right_a[pair],
            "b_right": right_b[pair],
        }
        for pair, count in ranked
    ]


@dataclass(frozen=True)
class Verdict:
    """Who is better, in plain words, and what that rests on; without a full stop each."""

    headline: str
    detail: str


def verdict(paired: dict[str, Any]) -> Verdict:
    """The verdict of a comparison's document, or of its `clean` part."""
    test, difference = paired["mcnemar"], paired["difference"]
    low, high = (100 * bound for bound in paired["difference_interval"])
    proof = f"McNemar's test, {test['method']}: p = {format_p(test['p_value'])}"
    if paired["winner"] is not None:
        better, worse = "AB" if paired["winner"] == "a" else "BA"
        if better == "B":
            low, high = -high, -low
        return Verdict(
            f"{better} beats {worse} by {100 * abs(difference):.1f} points",
            f"95 % interval of the difference {low:.1f} to {high:.1f} points; {proof}",
        )
    if not paired["only_a_right"] + paired["only_b_right"]:
        return Verdict("no difference", "A and B are right on exactly the same images")
    return Verdict(
        "cannot tell which is better",
        f"A minus B is {100 * difference:+.1f} points (95 %: {low:+.1f} to {high:+.1f}); {proof}. "
        f"The smallest difference that these {paired['images']:,} images could show is about "
        f"{100 * paired['smallest_difference']:.1f} points",
    )


def format_p(value: float) -> str:
    """A p-value as it is read."""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
