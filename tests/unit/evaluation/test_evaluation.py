"""Figures against scikit-learn; temperature and threshold against what is known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from fer_ray.bundle import limits
from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DataError, UserError
from fer_ray.evaluation.calibrate import (
    NO_RULE,
    ONE_SIDED_95,
    fit_calibration,
    fit_temperature,
    fit_threshold,
)
from fer_ray.evaluation.evaluate import figures, kept_figures, log_softmax
from fer_ray.evaluation.packing import check_packable, pack
from fer_ray.metrics import wilson_interval
from fer_ray.training.loop import Training
from tests.small import small_config, small_data

NAMES = ("a", "b", "c", "d", "e")


def drawn(seed: int, count: int, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: calibrated at temperature 1."""
    generator = np.random.default_rng(seed)
    logits = sharpness * generator.standard_normal((count, len(NAMES)))
    chances = np.exp(log_softmax(logits)).cumsum(axis=1)
    labels = (generator.random((count, 1)) > chances).sum(axis=1).clip(0, len(NAMES) - 1)
    return logits, labels.astype(np.int64)


def test_log_softmax_is_stable() -> None:
    found = log_softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], dtype=np.float32))
    assert found.dtype == np.float64
    assert np.allclose(found, [[0, -1000], [-np.log(2), -np.log(2)]])


@given(seed=st.integers(0, 10_000), count=st.integers(1, 80), temperature=st.floats(0.2, 5.0))
def test_figures_agree_with_scikit_learn(seed: int, count: int, temperature: float) -> None:
    logits, labels = drawn(seed, count)
    found = figures(logits, labels, NAMES, temperature)
    probabilities = np.exp(log_softmax(logits / temperature))
    predicted, every = logits.argmax(axis=1), list(range(len(NAMES)))
    assert found["count"] == count
    assert found["correct"] == (predicted == labels).sum()
    assert found["accuracy"] == pytest.approx(
        reference.accuracy_score(labels, predicted), abs=1e-12
    )
    assert found["accuracy_interval"] == list(wilson_interval(found["correct"], count))
    top2 = reference.top_k_accuracy_score(labels, probabilities, k=2, labels=every)
    assert found["top2_accuracy"] == pytest.approx(top2, abs=1e-12)
    macro = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(macro, abs=1e-12)
    log_loss = reference.log_loss(labels, probabilities, labels=every)
    assert found["log_loss"] == pytest.approx(log_loss, rel=1e-9)
    brier = reference.brier_score_loss(labels, probabilities, labels=every)
    assert found["brier"] == pytest.approx(brier, abs=1e-12)
    confusion = reference.confusion_matrix(labels, predicted, labels=every)
    assert found["confusion"] == confusion.tolist()
    columns = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for index, row in enumerate(found["classes"]):
        assert row["label"] == NAMES[index]
        keys = ("precision", "recall", "f1", "count")
        for key, column in zip(keys, columns, strict=True):
            assert row[key] == pytest.approx(column[index], abs=1e-12)


def test_figures_of_degenerate_splits() -> None:
    sure = np.array([[50.0, 0, 0, 0, 0]] * 4)
    right = figures(sure, np.zeros(4, np.int64), NAMES, 1.0)
    assert (right["accuracy"], right["macro_f1"], right["balanced_accuracy"]) == (1, 1, 1)
    assert right["ece"] == pytest.approx(0, abs=1e-12)
    wrong = figures(sure, np.ones(4, np.int64), NAMES, 1.0)
    assert (wrong["accuracy"], wrong["macro_f1"]) == (0, 0)
    assert wrong["ece"] == pytest.approx(1)
    assert wrong["log_loss"] == pytest.approx(50)
    assert wrong["top2_accuracy"] == 1.0, "ties go to the earlier class"


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        figures(np.zeros((0, 5)), np.zeros(0, np.int64), NAMES, 1.0)


def test_intervals_and_baseline_stand_beside_the_figures() -> None:
    logits, labels = drawn(5, 400)
    labels[:150] = 2
    found = figures(logits, labels, NAMES, 1.0)
    assert found["majority_label"] == "c"
    assert found["majority_accuracy"] == (labels == 2).mean()
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    confusion = np.array(found["confusion"])
    for index, row in enumerate(found["classes"]):
        hits = int(confusion[index, index])
        assert row["predicted"] == confusion[:, index].sum()
        expected = wilson_interval(hits, row["predicted"])
        assert row["precision_interval"] == list(expected)
        assert row["recall_interval"] == list(wilson_interval(hits, row["count"]))


def test_what_a_threshold_keeps() -> None:
    scores, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    found = kept_figures(scores, correct, 0.7)
    assert (found["kept"], found["coverage"], found["uncertain_share"]) == (3, 0.75, 0.25)
    assert found["precision"] == 2 / 3
    assert found["precision_interval"] == list(wilson_interval(2, 3))
    assert kept_figures(scores, correct, 1.0)["precision"] is None


def test_ece_is_told_before_and_after_the_temperature() -> None:
    logits, labels = drawn(0, 4000)
    found = figures(logits * 3, labels, NAMES, 3.0)
    assert found["ece"] < 0.03 < found["ece_before_temperature"]


# --- temperature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, labels = drawn(1, 8000, sharpness=2.0)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.06)


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10.0))
def test_no_temperature_has_a_lower_log_loss(seed: int, scale: float) -> None:
    logits, labels = drawn(seed, 60)
    logits = logits * scale
    rows = np.arange(60)

    def loss(t: float) -> float:
        return -float(log_softmax(logits / t)[rows, labels].mean())

    found = fit_temperature(logits, labels)
    assert 0.05 <= found <= 20
    for other in (1.0, found * 0.97, found * 1.03):
        assert loss(found) <= loss(min(max(other, 0.05), 20.0)) + 1e-6


# --- threshold ------------------------------------------------------------------------------------


def lower_bound(correct: np.ndarray) -> float:
    return wilson_interval(int(correct.sum()), len(correct), ONE_SIDED_95)[0]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 120),
    target=st.sampled_from([0.3, 0.5, 0.8, 0.9]),
)
def test_the_threshold_keeps_the_most_answers_that_its_bound_allows(
    seed: int, count: int, target: float
) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random(count).round(2) * 0.99
    correct = generator.random(count) < scores**0.3
    found = fit_threshold(scores, correct, target)
    if found is not None:
        kept = correct[scores >= found]
        assert lower_bound(kept) >= target
        assert kept.mean() > target
    for other in scores[scores < (1 if found is None else found)]:
        assert lower_bound(correct[scores >= other]) < target


def test_equal_scores_stand_or_fall_together() -> None:
    # Half of the answers at 0.8 are wrong: a threshold cannot part them.
    scores = np.repeat([0.9, 0.8], 40)
    correct = np.array([True] * 60 + [False] * 20)
    assert fit_threshold(scores, correct, 0.9) == 0.9
    assert fit_threshold(scores, correct, 0.6) == 0.8


def test_a_few_right_answers_prove_nothing() -> None:
    assert fit_threshold(np.full(5, 0.9), np.full(5, True), 0.9) is None
    assert fit_threshold(np.full(50, 0.9), np.full(50, True), 0.9) == 0.9


def test_a_target_out_of_reach_leaves_no_rule_and_every_answer_uncertain() -> None:
    assert fit_threshold(np.array([0.9, 0.8]), np.array([False, False]), 0.9) is None
    logits, labels = drawn(4, 200, sharpness=0.1)
    found = fit_calibration(logits, labels, 0.99)
    assert (found.threshold, found.coverage) == (NO_RULE, 0.0)
    assert (np.exp(log_softmax(logits / found.temperature)).max(axis=1) < found.threshold).all()


def test_the_target_holds_on_new_images() -> None:
    """The bare precision would miss it on about half of them."""
    missed = []
    for seed in range(60):
        logits, labels = drawn(100 + seed, 2000)
        found = fit_calibration(logits[:1000], labels[:1000], 0.9)
        probabilities = np.exp(log_softmax(logits[1000:] / found.temperature))
        kept = probabilities.max(axis=1) >= found.threshold
        right = (probabilities.argmax(axis=1) == labels[1000:])[kept]
        missed.append(right.mean() < 0.9)
    assert np.mean(missed) < 0.25


def test_calibration_fits_both_and_tells_the_coverage() -> None:
    logits, labels = drawn(2, 3000)
    found = fit_calibration(logits * 2, labels, 0.9)
    assert found.temperature == pytest.approx(2, rel=0.1)
    probabilities = np.exp(log_softmax(logits * 2 / found.temperature))
    sure = probabilities.max(axis=1) >= found.threshold
    assert sure.mean() == found.coverage
    assert (probabilities.argmax(axis=1) == labels)[sure].mean() >= 0.9
    assert 0 < found.coverage < 1


# --- packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "value", "words"),
    [
        ("model.cnn.head", (4,) * (limits.MAX_HEAD_LAYERS + 1), "the head has"),
        ("model.cnn.head", (8192,) * 6, "No bundle can hold it"),
    ],
)
def test_a_network_that_no_bundle_can_hold_is_refused_before_it_trains(
    address: str, value: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_packable(small_config({address: value}), small_data())
    check_packable(small_config(), small_data())


def test_a_packed_training_answers_as_its_validation_said(tmp_path: Path) -> None:
    config, data = small_config({"train.epochs": 3, "train.ema": 0.8}), small_data()
    training = Training(config, data)
    for _ in training.epochs():
        pass
    bundle_id = pack(
        tmp_path / "bundle",
        config=config,
        data=data,
        state=training.best_state(),
        curve=training.curve,
        data_name="synthetic faces",
    )
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.id == bundle_id
    validation = bundle.contents.metrics["validation"]
    assert validation["accuracy"] == training.best_objective
    logits = Predictor(bundle, "fp32", "cpu").logits(data.validation.images)
    temperature = bundle.contents.calibration.temperature
    again = figures(logits, data.validation.labels, data.class_names, temperature)
    assert again["confusion"] == validation["confusion"]
    assert again["log_loss"] == pytest.approx(validation["log_loss"], abs=1e-5)
    assert bundle.contents.lineage["config"] == config.training_part()
    assert bundle.contents.lineage["curve"] == training.curve
