"""The verdict on a data set: pristine FER2013, or what is different about it."""

import numpy as np
import pytest

from fer_ray.data.known import COUNTS, TRAIN_MEAN, TRAIN_STD, verdict_of
from fer_ray.labels import EXPRESSIONS

Counts = dict[str, dict[str, int]]


def published(*splits: str) -> Counts:
    return {split: dict(zip(EXPRESSIONS, COUNTS[split], strict=True)) for split in splits}


WHOLE = published("train", "validation", "test")
WITHOUT_TEST = published("train", "validation")


def test_the_published_totals() -> None:
    assert {split: sum(row) for split, row in COUNTS.items()} == {
        "train": 28_709,
        "validation": 3_589,
        "test": 3_589,
    }
    assert np.sum(list(COUNTS.values())) == 35_887


def test_pristine() -> None:
    assert verdict_of(WHOLE, TRAIN_MEAN, TRAIN_STD, 1853, 0) == "pristine FER2013"
    found = verdict_of(WITHOUT_TEST, TRAIN_MEAN + 0.001, TRAIN_STD - 0.001, 1532, 0)
    assert found == "pristine FER2013 without PrivateTest"


@pytest.mark.parametrize(
    ("counts", "mean", "std", "duplicates", "words"),
    [
        (WHOLE, 0.52, TRAIN_STD, 1853, "altered FER2013: its counts, but training pixels"),
        (WHOLE, TRAIN_MEAN, 0.26, 1853, "altered FER2013: its counts, but training pixels"),
        (WHOLE, TRAIN_MEAN, TRAIN_STD, 1532, "altered FER2013: its counts, but 1,532"),
        (WITHOUT_TEST, TRAIN_MEAN, TRAIN_STD, 1853, "altered FER2013: its counts, but 1,853"),
    ],
)
def test_altered(counts: Counts, mean: float, std: float, duplicates: int, words: str) -> None:
    assert verdict_of(counts, mean, std, duplicates, 0).startswith(words)


def test_other_counts_name_the_split_and_what_was_skipped() -> None:
    counts = published("train", "validation", "test")
    counts["validation"]["happy"] -= 1
    text = verdict_of(counts, TRAIN_MEAN, TRAIN_STD, 1853, 0)
    assert text == "not FER2013 as published: other class counts in validation"
    assert verdict_of(counts, TRAIN_MEAN, TRAIN_STD, 1853, 3).endswith(", 3 skipped at import")
