"""Classification metrics, each one formula, from counts that can be summed over batches.

A `Tally` holds sums and counts only, so tallies of shards add up to the tally of the whole and
are divided once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass
class Tally:
    """Sums over images.

    Attributes:
        confusion: int64 [C, C], rows = true class, columns = predicted class.
        log_loss_sum: sum over images of -ln p(true class), in nats.
    """

    confusion: IntArray
    log_loss_sum: float = 0.0

    @classmethod
    def empty(cls, num_classes: int) -> Tally:
        return cls(np.zeros((num_classes, num_classes), dtype=np.int64))

    def add(self, labels: IntArray, log_probabilities: FloatArray) -> None:
        """Count one batch.

        Args:
            labels: int64 [N], class indices.
            log_probabilities: float64 [N, C], natural logarithms, rows sum to 1 in exp.
        """
        predicted = log_probabilities.argmax(axis=1)
        np.add.at(self.confusion, (labels, predicted), 1)
        self.log_loss_sum -= float(log_probabilities[np.arange(len(labels)), labels].sum())

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.confusion + other.confusion, self.log_loss_sum + other.log_loss_sum)

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion)) / max(self.count, 1)

    @property
    def log_loss(self) -> float:
        """Mean cross-entropy an image, nats."""
        return self.log_loss_sum / max(self.count, 1)

    @property
    def recall(self) -> FloatArray:
        """float64 [C]; 0 for a class without images (as scikit-learn's zero_division=0)."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision(self) -> FloatArray:
        """float64 [C]; 0 for a class never predicted."""
        return _ratio(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def f1(self) -> FloatArray:
        """float64 [C]; 2 TP / (2 TP + FP + FN), 0 for a class neither there nor predicted."""
        total = self.confusion.sum(axis=0) + self.confusion.sum(axis=1)
        return _ratio(2 * np.diag(self.confusion), total)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur or are predicted."""
        seen = (self.confusion.sum(axis=0) + self.confusion.sum(axis=1)) > 0
        return float(self.f1[seen].mean()) if seen.any() else 0.0

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that occur."""
        seen = self.confusion.sum(axis=1) > 0
        return float(self.recall[seen].mean()) if seen.any() else 0.0

    @property
    def majority_accuracy(self) -> float:
        """Accuracy of always answering the commonest class: what any figure must be read beside."""
        return float(self.confusion.sum(axis=1).max()) / max(self.count, 1)

    def value(self, metric: str) -> float:
        """The metric of a config's `objective.metric`, without its `val/` prefix."""
        return float(getattr(self, metric.removeprefix("val/")))


def _ratio(numerator: npt.NDArray[Any], denominator: IntArray) -> FloatArray:
    """Element by element; 0 where the denominator is 0."""
    out = np.zeros(len(numerator), dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def top_k_accuracy(labels: IntArray, log_probabilities: FloatArray, k: int) -> float:
    """Share of images whose true class is among the k likeliest; ties go to the earlier class.

    Args:
        labels: int64 [N], N at least 1.
        log_probabilities: float64 [N, C]; any growing function of them does.
    """
    ranked = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :k]
    return float((ranked == labels[:, None]).any(axis=1).mean())


def brier_score(labels: IntArray, probabilities: FloatArray) -> float:
    """Mean over images of sum over classes (p - truth)^2, in [0, 2] (Brier 1950).

    Args:
        labels: int64 [N], N at least 1.
        probabilities: float64 [N, C].
    """
    off = probabilities.copy()
    off[np.arange(len(labels)), labels] -= 1.0
    return float((off**2).sum(axis=1).mean())


def wilson_interval(
    successes: int, count: int, z: float = 1.959963984540054
) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), 95 % by default.

    Returns:
        lower and upper bound, both in [0, 1]; (0, 1) without any trial.
    """
    if count == 0:
        return 0.0, 1.0
    p = successes / count
    centre = p + z * z / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error over equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    Attributes:
        ece: sum over bins of |accuracy - confidence| weighted by the bin's share.
        bin_count: int64 [B].
        bin_confidence: float64 [B], mean confidence, 0 in an empty bin.
        bin_accuracy: float64 [B], 0 in an empty bin.
    """

    ece: float
    bin_count: IntArray = field(repr=False)
    bin_confidence: FloatArray = field(repr=False)
    bin_accuracy: FloatArray = field(repr=False)


def calibration(labels: IntArray, probabilities: FloatArray, num_bins: int = 15) -> Calibration:
    """Compare confidence with accuracy.

    Args:
        labels: int64 [N].
        probabilities: float64 [N, C].
        num_bins: equal-width bins of (0, 1], upper edges included as in the paper.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins).astype(np.int64)
    confidence_mean = _ratio(np.bincount(bins, confidence, num_bins), count)
    accuracy_mean = _ratio(np.bincount(bins, correct.astype(np.float64), num_bins), count)
    gap = np.abs(confidence_mean - accuracy_mean)
    ece = float((gap * count).sum() / max(int(count.sum()), 1))
    return Calibration(ece, count, confidence_mean, accuracy_mean)


def bootstrap_interval(
    confusion: IntArray, metric: str, num_draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `macro_f1` or `balanced_accuracy` (Efron 1979).

    Drawing N images with replacement draws the confusion matrix from a multinomial distribution,
    so the images themselves are not needed. A class that a draw misses does not count in it, as in
    `Tally`. The same matrix gives the same interval.

    Args:
        confusion: int64 [C, C], rows = true class; at least one image.
        metric: a property of `Tally`.
        num_draws: resamples.
        seed: of the draws.
    """
    rows, columns = confusion.nonzero()
    shares = confusion[rows, columns] / confusion.sum()
    generator = np.random.default_rng(seed)
    values = []
    for draw in generator.multinomial(int(confusion.sum()), shares, num_draws):
        drawn = np.zeros_like(confusion)
        drawn[rows, columns] = draw
        values.append(Tally(drawn).value(metric))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class RiskCoverage:
    """Errors among the answers that are kept, when the least certain are left out first.

    El-Yaniv and Wiener 2010 (JMLR 11). Equal scores stand or fall together.

    Attributes:
        threshold: float64 [K], falling; answers with a score from there on are kept.
        coverage: float64 [K], share of images kept, rising to 1.
        risk: float64 [K], share of wrong answers among them.
        area: under the curve, as a step function of coverage; smaller is better.
    """

    threshold: FloatArray
    coverage: FloatArray
    risk: FloatArray
    area: float


def risk_coverage(scores: FloatArray, correct: npt.NDArray[np.bool_]) -> RiskCoverage:
    """The curve.

    Args:
        scores: float64 [N], N at least 1.
        correct: bool [N].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.diff(ranked) != 0, True)
    kept = np.arange(1, len(order) + 1)[last]
    risk = 1.0 - np.cumsum(correct[order])[last] / kept
    coverage = kept / len(order)
    area = float((risk * np.diff(coverage, prepend=0.0)).sum())
    return RiskCoverage(ranked[last], coverage, risk, area)
