"""Metrics against scikit-learn, and the two intervals against published numbers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from fer_ray.metrics import (
    Tally,
    bootstrap_interval,
    brier_score,
    calibration,
    risk_coverage,
    top_k_accuracy,
    wilson_interval,
)


def batch(seed: int, count: int, num_classes: int, used: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels among the first `used` classes, and log probabilities over all."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, used, count)
    logits = 3 * generator.standard_normal((count, num_classes))
    return labels, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def tally_of(labels: np.ndarray, log_p: np.ndarray) -> Tally:
    tally = Tally.empty(log_p.shape[1])
    tally.add(labels, log_p)
    return tally


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    num_classes=st.integers(2, 9),
    share=st.floats(0.0, 1.0),
)
def test_agrees_with_scikit_learn(seed: int, count: int, num_classes: int, share: float) -> None:
    labels, log_p = batch(seed, count, num_classes, max(1, round(share * num_classes)))
    tally = tally_of(labels, log_p)
    predicted = log_p.argmax(axis=1)
    every = list(range(num_classes))
    confusion = reference.confusion_matrix(labels, predicted, labels=every)
    assert np.array_equal(tally.confusion, confusion)
    assert tally.accuracy == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    assert np.allclose(tally.precision, precision, rtol=0, atol=1e-12)
    assert np.allclose(tally.recall, recall, rtol=0, atol=1e-12)
    assert np.allclose(tally.f1, f1, rtol=0, atol=1e-12)
    macro_f1 = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert tally.macro_f1 == pytest.approx(macro_f1, abs=1e-12)
    expected = reference.recall_score(
        labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
    )
    assert tally.balanced_accuracy == pytest.approx(expected, abs=1e-12)
    log_loss = reference.log_loss(labels, np.exp(log_p), labels=every)
    assert tally.log_loss == pytest.approx(log_loss, abs=1e-12, rel=1e-12)


@given(
    answers=st.lists(
        st.tuples(st.sampled_from([0, 2, 5]), st.sampled_from([1, 2, 5])), min_size=1, max_size=12
    ),
    sharpness=st.floats(0.1, 8),
)
def test_agrees_with_scikit_learn_where_classes_are_missing(
    answers: list[tuple[int, int]], sharpness: float
) -> None:
    # Classes 3 and 4 are nowhere, 0 is never answered, 1 never true; often one image only.
    labels, predicted = (np.array(column) for column in zip(*answers, strict=True))
    generator = np.random.default_rng(len(answers))
    logits = generator.standard_normal((len(labels), 6)) * 0.01
    logits[np.arange(len(labels)), predicted] += sharpness
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    tally, every = tally_of(labels, log_p), list(range(6))
    columns = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for found, expected in zip((tally.precision, tally.recall, tally.f1), columns, strict=False):
        assert np.allclose(found, expected, rtol=0, atol=1e-12)
    macro = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert tally.macro_f1 == pytest.approx(macro, abs=1e-12)
    there = np.unique(labels)
    recall = reference.recall_score(
        labels, predicted, labels=there, average="macro", zero_division=0
    )
    assert tally.balanced_accuracy == pytest.approx(recall, abs=1e-12)
    assert tally.majority_accuracy == max((labels == label).mean() for label in there)
    loss = reference.log_loss(labels, np.exp(log_p), labels=every)
    assert tally.log_loss == pytest.approx(loss, abs=1e-12, rel=1e-12)


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    num_classes=st.integers(3, 9),
    k=st.integers(1, 4),
)
def test_top_k_and_brier_agree_with_scikit_learn(
    seed: int, count: int, num_classes: int, k: int
) -> None:
    labels, log_p = batch(seed, count, num_classes, max(1, num_classes - 2))
    every = list(range(num_classes))
    if k < num_classes:
        expected = reference.top_k_accuracy_score(labels, log_p, k=k, labels=every)
        assert top_k_accuracy(labels, log_p, k) == pytest.approx(expected, abs=1e-12)
    brier = reference.brier_score_loss(labels, np.exp(log_p), labels=every)
    assert brier_score(labels, np.exp(log_p)) == pytest.approx(brier, abs=1e-12)


def test_ties_of_top_k_go_to_the_earlier_class_as_the_answer_does() -> None:
    flat = np.log(np.full((40, 40), 1 / 40))
    assert top_k_accuracy(np.arange(40), flat, 2) == 2 / 40
    assert top_k_accuracy(np.arange(40), flat, 1) == tally_of(np.arange(40), flat).accuracy


def test_balanced_accuracy_is_scikit_learns() -> None:
    labels, log_p = batch(0, 500, 7, 7)
    expected = reference.balanced_accuracy_score(labels, log_p.argmax(axis=1))
    assert tally_of(labels, log_p).balanced_accuracy == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_tallies_of_shards_add_up_to_the_whole(seed: int, cuts: list[int]) -> None:
    labels, log_p = batch(seed, 40, 5, 5)
    whole = tally_of(labels, log_p)
    total = Tally.empty(5)
    edges = [0, *sorted(cuts), 40]
    for start, end in itertools.pairwise(edges):
        total = total + tally_of(labels[start:end], log_p[start:end])
    assert np.array_equal(total.confusion, whole.confusion)
    assert total.log_loss == pytest.approx(whole.log_loss, rel=1e-12)


def test_without_images_nothing_divides_by_zero() -> None:
    tally = Tally.empty(3)
    figures = (
        tally.count,
        tally.accuracy,
        tally.macro_f1,
        tally.balanced_accuracy,
        tally.log_loss,
        tally.majority_accuracy,
    )
    assert figures == (0, 0, 0, 0, 0, 0)


def test_majority_accuracy_is_the_share_of_the_commonest_class() -> None:
    log_p = np.log(np.full((4, 3), 1 / 3))
    assert tally_of(np.array([2, 2, 2, 0]), log_p).majority_accuracy == 0.75


def test_a_metric_is_found_by_its_config_name() -> None:
    labels, log_p = batch(1, 50, 3, 3)
    tally = tally_of(labels, log_p)
    assert tally.value("val/macro_f1") == tally.macro_f1
    assert tally.value("val/log_loss") == tally.log_loss
    assert tally.value("val/accuracy") == tally.accuracy
    assert tally.value("val/balanced_accuracy") == tally.balanced_accuracy
    assert len({tally.macro_f1, tally.log_loss, tally.accuracy}) == 3


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_interval(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(count=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_interval_holds_the_proportion(count: int, share: float) -> None:
    successes = round(share * count)
    low, high = wilson_interval(successes, count)
    assert 0 <= low <= successes / count + 1e-12
    assert successes / count - 1e-12 <= high <= 1


def written_out_ece(labels: np.ndarray, probabilities: np.ndarray, num_bins: int) -> float:
    """Guo et al. 2017, equation 3, bin by bin."""
    total = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        confidences, hits = [], []
        for label, row in zip(labels, probabilities, strict=True):
            if low < row.max() <= high:
                confidences.append(row.max())
                hits.append(row.argmax() == label)
        if hits:
            total += len(hits) * abs(sum(hits) / len(hits) - sum(confidences) / len(hits))
    return total / len(labels)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 80), num_bins=st.integers(1, 20))
def test_ece_is_its_formula(seed: int, count: int, num_bins: int) -> None:
    labels, log_p = batch(seed, count, 4, 4)
    found = calibration(labels, np.exp(log_p), num_bins)
    expected = written_out_ece(labels, np.exp(log_p), num_bins)
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert found.bin_count.sum() == count


def test_ece_of_a_network_that_is_always_sure_and_half_right() -> None:
    probabilities = np.tile([1.0, 0.0], (10, 1))
    found = calibration(np.array([0, 1] * 5), probabilities)
    assert found.ece == pytest.approx(0.5)
    assert found.bin_count[-1] == 10
    assert math.isclose(found.bin_accuracy[-1], 0.5)
    assert math.isclose(found.bin_confidence[-1], 1.0)


def test_an_upper_edge_belongs_to_its_bin() -> None:
    probabilities = np.array([[0.6, 0.4], [0.61, 0.39]])
    assert calibration(np.array([0, 0]), probabilities, 5).bin_count.tolist() == [0, 0, 1, 1, 0]


# --- bootstrap, risk and coverage -----------------------------------------------------------------


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_the_bootstrap_over_counts_is_the_one_over_images(metric: str) -> None:
    labels, log_p = batch(3, 150, 4, 4)
    log_p[np.arange(150), labels] += 3
    tally = tally_of(labels, log_p)
    low, high = bootstrap_interval(tally.confusion, metric)
    generator = np.random.default_rng(1)
    draws = (generator.integers(0, 150, 150) for _ in range(2000))
    values = [tally_of(labels[rows], log_p[rows]).value(metric) for rows in draws]
    assert (low, high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.012)
    assert low < tally.value(metric) < high
    assert bootstrap_interval(tally.confusion, metric) == (low, high)


def test_the_bootstrap_of_one_image_is_a_point() -> None:
    assert bootstrap_interval(np.array([[1, 0], [0, 0]]), "macro_f1") == (1.0, 1.0)
    assert bootstrap_interval(np.array([[0, 1], [0, 0]]), "balanced_accuracy") == (0.0, 0.0)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), levels=st.integers(1, 20))
def test_risk_and_coverage_are_those_of_every_threshold(seed: int, count: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, count) / levels
    correct = generator.random(count) < 0.6
    found = risk_coverage(scores, correct)
    assert found.threshold.tolist() == sorted(set(scores.tolist()), reverse=True)
    for threshold, coverage, risk in zip(found.threshold, found.coverage, found.risk, strict=True):
        kept = scores >= threshold
        assert coverage == pytest.approx(kept.mean(), abs=1e-12)
        assert risk == pytest.approx(1 - correct[kept].mean(), abs=1e-12)
    steps = np.diff(found.coverage, prepend=0)
    assert found.area == pytest.approx(float(sum(steps * found.risk)), abs=1e-12)
    assert found.coverage[-1] == 1
