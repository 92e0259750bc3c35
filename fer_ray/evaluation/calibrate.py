"""Temperature and abstention threshold, fitted on the validation split."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.contents import CalibrationConfig
from fer_ray.evaluation.evaluate import log_softmax

TARGET_PRECISION = 0.9
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_LOWEST, _HIGHEST = 0.05, 20.0


def fit_calibration(
    logits: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    target_precision: float = TARGET_PRECISION,
) -> CalibrationConfig:
    """Fit both.

    Args:
        logits: [N, C] on validation images.
        labels: int64 [N].
        target_precision: share of right answers wanted among those that are not uncertain.
    """
    temperature = fit_temperature(logits, labels)
    probabilities = np.exp(log_softmax(logits / temperature))
    scores = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    threshold = fit_threshold(scores, correct, target_precision)
    coverage = float((scores >= threshold).mean())
    return CalibrationConfig(temperature, threshold, target_precision, coverage)


def fit_temperature(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """The temperature of least log loss (Guo et al. 2017, arXiv 1706.04599).

    The loss is convex in 1/T; golden-section search over ln T.
    """
    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / math.exp(log_t))[rows, labels].mean())

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    for _ in range(40):
        left = high - _GOLDEN_RATIO * (high - low)
        right = low + _GOLDEN_RATIO * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(math.exp((low + high) / 2), 6)


def fit_threshold(
    scores: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], target_precision: float
) -> float:
    """The lowest score from which on answers are right often enough.

    Returns:
        in [0, 1]; 1 where no threshold reaches the target.
    """
    order = np.argsort(-scores, kind="stable")
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # A threshold cannot part equal scores: only the last of them counts.
    last = np.append(np.diff(scores[order]) != 0, True)
    good = np.flatnonzero((precision >= target_precision) & last)
    if not len(good):
        return 1.0
    return float(min(scores[order[good[-1]]], 1.0))
