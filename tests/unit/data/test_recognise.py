"""Naming what a set is, from its figures."""

from typing import Any

import pytest

from fer_ray.data.known import (
    COUNTS,
    TRAIN_DETAIL,
    TRAIN_MEAN,
    TRAIN_STD,
    TRAIN_UNEVENNESS,
)
from fer_ray.data.recognise import Figures, recognise
from fer_ray.labels import EXPRESSIONS

Counts = dict[str, dict[str, int]]


def published(*splits: str) -> Counts:
    return {split: dict(zip(EXPRESSIONS, COUNTS[split], strict=True)) for split in splits}


def figures(counts: Counts | None = None, **changes: Any) -> Figures:
    values = {
        "counts": counts or published("train", "validation"),
        "size_px": 48,
        "mean": TRAIN_MEAN,
        "std": TRAIN_STD,
        "unevenness": TRAIN_UNEVENNESS,
        "detail": TRAIN_DETAIL,
        "surplus_duplicates": 1532,
    }
    return Figures(**{**values, **changes})


def scaled(share: float) -> Counts:
    return {
        split: {name: int(n * share) for name, n in row.items()}
        for split, row in published("train", "validation").items()
    }


def test_pristine() -> None:
    assert recognise(figures()).text == "pristine FER2013 without PrivateTest"
    whole = published("train", "validation", "test")
    verdict = recognise(figures(whole, surplus_duplicates=1853))
    assert (verdict.kind, verdict.text) == ("pristine", "pristine FER2013")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # Measured on copies of the real training images: see fer_ray/data/pixels.py.
        ({"mean": 0.5013, "std": 0.2917, "unevenness": 0.004, "detail": 0.94}, ["equalised ("]),
        ({"std": 0.2441, "unevenness": 0.133, "detail": 0.12}, ["blurred"]),
        ({"std": 0.2497, "detail": 0.35}, ["blurred"]),
        ({"std": 0.2681, "unevenness": 0.024, "detail": 0.09}, ["equalised (", "blurred"]),
        ({"mean": 0.5594, "std": 0.2678, "unevenness": 0.095, "detail": 1.08}, ["as CLAHE does"]),
        ({"std": 0.2659, "unevenness": 0.121, "detail": 1.28}, ["sharpened"]),
        ({"mean": 0.5986, "std": 0.2363, "unevenness": 0.15, "detail": 0.75}, ["other light"]),
        ({"surplus_duplicates": 7}, ["7 surplus duplicates instead of 1,532"]),
    ],
)
def test_altered_pixels_are_named(changes: dict[str, float], words: list[str]) -> None:
    verdict = recognise(figures(**changes))
    assert verdict.kind == "altered"
    assert len(verdict.findings) == len(words)
    for finding, word in zip(verdict.findings, words, strict=True):
        assert word in finding
        assert finding in verdict.text


def test_larger_images_are_not_judged_by_detail() -> None:
    assert recognise(figures(size_px=96, detail=0.1)).kind == "pristine"


def test_resplit() -> None:
    total = published("train", "validation", "test")
    train = {name: total["train"][name] + 16 for name in EXPRESSIONS}
    rest = {name: sum(total[split][name] for split in total) - train[name] for name in EXPRESSIONS}
    verdict = recognise(figures({"train": train, "validation": rest}))
    assert verdict.kind == "re-split"
    assert "the 35,887 images of the official train 28,709, validation 3,589, test 3,589" in (
        verdict.text
    )
    assert "divided as train 28,821, validation 7,066" in verdict.text


def test_a_validation_split_made_of_the_training_one() -> None:
    train = published("train")["train"]
    tenth = {name: n // 10 for name, n in train.items()}
    rest = {name: n - tenth[name] for name, n in train.items()}
    verdict = recognise(figures({"train": rest, "validation": tenth}))
    assert verdict.kind == "re-split"
    assert "the 28,709 images of the official train 28,709 divided" in verdict.text


def test_truncated_and_equalised_at_once() -> None:
    verdict = recognise(figures(scaled(0.6), surplus_duplicates=500))
    assert verdict.kind == "truncated"
    assert "train has 17,224 of 28,709, validation has" in verdict.text
    both = recognise(figures(scaled(0.6), unevenness=0.004, std=0.29))
    assert both.kind == "truncated"
    assert len(both.findings) == 2


def test_a_class_that_is_missing_is_named() -> None:
    counts = published("train", "validation")
    counts["train"]["disgust"] = counts["validation"]["disgust"] = 0
    verdict = recognise(figures(counts))
    assert "train has 28,273 of 28,709 (disgust 0 of 436)" in verdict.text


def test_labels_in_another_order() -> None:
    alphabetical = sorted(EXPRESSIONS)
    counts = {
        split: dict(zip(alphabetical, COUNTS[split], strict=True))
        for split in ("train", "validation")
    }
    verdict = recognise(figures(counts))
    assert verdict.kind == "altered"
    assert "neutral stands as surprise" in verdict.text


def test_what_is_not_fer2013() -> None:
    few = {split: dict.fromkeys(EXPRESSIONS, 20) for split in ("train", "validation")}
    assert recognise(figures(few)).text == (
        "not FER2013 as published: other class counts in train, validation"
    )
    more = published("train", "validation")
    more["train"]["happy"] += 1
    assert recognise(figures(more)).kind == "other"
    cats = {"train": {"cat": 3}, "validation": {"cat": 1}}
    assert recognise(figures(cats)).text == "not FER2013 as published: other classes (cat)"
    assert "3 skipped at import" in recognise(figures(more, num_skipped=3)).text
