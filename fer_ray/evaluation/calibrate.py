"""Temperature and abstention threshold, fitted on the validation split."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.contents import CalibrationConfig
from fer_ray.evaluation.evaluate import log_softmax
from fer_ray.metrics import wilson_interval

TARGET_PRECISION = 0.9
NO_RULE = 1.0
"""The threshold of a bundle whose target no threshold reaches: every answer is uncertain."""

ONE_SIDED_95 = 1.6448536269514722
"""Standard normal deviate; the lower Wilson bound at it holds with 95 % confidence."""

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

    Returns:
        threshold `NO_RULE` and coverage 0 where no threshold reaches the target.
    """
    temperature = fit_temperature(logits, labels)
    probabilities = np.exp(log_softmax(logits / temperature))
    scores = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    threshold = fit_threshold(scores, correct, target_precision)
    if threshold is None:
        return CalibrationConfig(temperature, NO_RULE, target_precision, 0.0)
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
) -> float | None:
    """The lowest score from which on answers are right often enough, beyond the luck of the draw.

    What counts is not the precision that these images happen to show but its lower 95 % bound
    (one-sided Wilson): a threshold at the bare precision misses its target on every other set of
    new images, and a single right answer would do. The bound holds for each threshold by itself;
    choosing the lowest of many weakens it a little (docs/evaluation.md has measured how much).

    Args:
        scores: float64 [N], probability of each answer.
        correct: bool [N].
        target_precision: in (0, 1).

    Returns:
        below 1; None where no threshold reaches the target.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], np.cumsum(correct[order])
    # A threshold cannot part equal scores: only the last of them counts.
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    for end in ends[::-1]:
        low, _ = wilson_interval(int(right[end]), int(end) + 1, ONE_SIDED_95)
        if low >= target_precision:
            return float(ranked[end]) if ranked[end] < NO_RULE else None
    return None
