"""Every figure of a network on a split, from its logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.errors import DataError
from fer_ray.metrics import (
    Tally,
    bootstrap_interval,
    brier_score,
    calibration,
    top_k_accuracy,
    wilson_interval,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ECE_BINS = 15
"""Equal-width bins of the confidence, as Guo et al. 2017 count them."""


def log_softmax(logits: npt.NDArray[Any]) -> FloatArray:
    """float64 [N, C], natural logarithms of probabilities."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def figures(
    logits: npt.NDArray[Any],
    labels: IntArray,
    class_names: tuple[str, ...],
    temperature: float,
) -> dict[str, Any]:
    """All metrics of a split, as they stand in `metrics.json` and `evaluate --json`.

    Args:
        logits: [N, C].
        labels: int64 [N].
        class_names: C names.
        temperature: probabilities are softmax(logits / temperature).

    Raises:
        DataError: there is no image.
    """
    if not len(labels):
        raise DataError("there is no image to evaluate on: no figure can be given")
    log_p = log_softmax(logits / temperature)
    probabilities = np.exp(log_p)
    tally = Tally.empty(len(class_names))
    tally.add(labels, log_p)
    correct = int(np.trace(tally.confusion))
    return {
        "count": tally.count,
        "correct": correct,
        "accuracy": tally.accuracy,
        "accuracy_interval": list(wilson_interval(correct, tally.count)),
        "majority_accuracy": tally.majority_accuracy,
        "majority_label": class_names[int(tally.confusion.sum(axis=1).argmax())],
        "top2_accuracy": top_k_accuracy(labels, log_p, 2),
        "macro_f1": tally.macro_f1,
        "macro_f1_interval": list(bootstrap_interval(tally.confusion, "macro_f1")),
        "balanced_accuracy": tally.balanced_accuracy,
        "balanced_accuracy_interval": list(
            bootstrap_interval(tally.confusion, "balanced_accuracy")
        ),
        "log_loss": tally.log_loss,
        "brier": brier_score(labels, probabilities),
        "ece": calibration(labels, probabilities, ECE_BINS).ece,
        "ece_before_temperature": calibration(labels, np.exp(log_softmax(logits)), ECE_BINS).ece,
        "ece_bins": ECE_BINS,
        "temperature": temperature,
        "confusion": tally.confusion.tolist(),
        "classes": _classes(tally, class_names),
    }


def _classes(tally: Tally, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a class; `count` is its support, `predicted` how often it was the answer."""
    there, answered = tally.confusion.sum(axis=1), tally.confusion.sum(axis=0)
    hits = np.diag(tally.confusion)
    precision, recall, f1 = tally.precision, tally.recall, tally.f1
    return [
        {
            "label": name,
            "count": int(there[index]),
            "predicted": int(answered[index]),
            "precision": float(precision[index]),
            "precision_interval": list(wilson_interval(int(hits[index]), int(answered[index]))),
            "recall": float(recall[index]),
            "recall_interval": list(wilson_interval(int(hits[index]), int(there[index]))),
            "f1": float(f1[index]),
        }
        for index, name in enumerate(class_names)
    ]


def kept_figures(
    scores: FloatArray, correct: npt.NDArray[np.bool_], threshold: float
) -> dict[str, Any]:
    """What an abstention threshold does: how many answers stay, and how often they are right.

    Args:
        scores: float64 [N], probability of each answer.
        correct: bool [N].
        threshold: answers below it are uncertain.

    Returns:
        `precision` is None where no answer stays.
    """
    kept = scores >= threshold
    number, right = int(kept.sum()), int(correct[kept].sum())
    return {
        "count": len(scores),
        "kept": number,
        "coverage": number / len(scores),
        "uncertain_share": 1 - number / len(scores),
        "precision": right / number if number else None,
        "precision_interval": list(wilson_interval(right, number)),
    }
