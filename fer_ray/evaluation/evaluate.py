"""Every figure of a network on a split, from its logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.metrics import Tally, calibration, wilson_interval

FloatArray = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[Any]) -> FloatArray:
    """float64 [N, C], natural logarithms of probabilities."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def figures(
    logits: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    class_names: tuple[str, ...],
    temperature: float,
) -> dict[str, Any]:
    """All metrics of a split, as they stand in `metrics.json` and `evaluate --json`.

    Args:
        logits: [N, C].
        labels: int64 [N].
        class_names: C names.
        temperature: probabilities are softmax(logits / temperature).
    """
    log_p = log_softmax(logits / temperature)
    tally = Tally.empty(len(class_names))
    tally.add(labels, log_p)
    correct = int(np.trace(tally.confusion))
    top2 = np.argsort(-log_p, axis=1)[:, :2]
    one_hot = np.eye(len(class_names))[labels]
    probabilities = np.exp(log_p)
    return {
        "count": tally.count,
        "correct": correct,
        "accuracy": tally.accuracy,
        "accuracy_interval": list(wilson_interval(correct, tally.count)),
        "majority_accuracy": tally.majority_accuracy,
        "top2_accuracy": float((top2 == labels[:, None]).any(axis=1).mean()),
        "macro_f1": tally.macro_f1,
        "balanced_accuracy": tally.balanced_accuracy,
        "log_loss": tally.log_loss,
        "brier": float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
        "ece": calibration(labels, probabilities).ece,
        "ece_before_temperature": calibration(labels, np.exp(log_softmax(logits))).ece,
        "confusion": tally.confusion.tolist(),
        "classes": [
            {
                "label": name,
                "count": int(tally.confusion[index].sum()),
                "precision": float(tally.precision[index]),
                "recall": float(tally.recall[index]),
                "f1": float(tally.f1[index]),
            }
            for index, name in enumerate(class_names)
        ],
    }
