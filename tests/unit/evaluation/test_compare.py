"""Two bundles on the same images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.prepared import TEST_OPENINGS
from fer_ray.errors import DataError
from fer_ray.evaluation.compare import verdict
from fer_ray.evaluation.paired import difference_interval, mcnemar, smallest_difference
from fer_ray.report.comparison_text import comparison_lines

Pair = tuple[Predictor, Predictor]


def test_the_tables_are_those_of_the_answers(predictors: Pair, many: Path) -> None:
    comparison = api.compare(*predictors, many)
    document, part = comparison.document, comparison.split
    names = part.class_names
    answers = [probabilities.argmax(axis=1) for probabilities in comparison.probabilities]
    for predictor, side, answer in zip(predictors, "ab", answers, strict=True):
        assert np.array_equal(predictor.logits(part.images).argmax(axis=1), answer)
        assert document[side]["accuracy"] == (answer == part.labels).mean()
        assert document[side]["bundle"]["id"] == predictor.bundle.id
    a, b = (answer == part.labels for answer in answers)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert (document["only_a_right"], document["only_b_right"]) == (only_a, only_b)
    assert document["both_right"] + only_a + only_b + document["both_wrong"] == 700
    assert document["difference"] == pytest.approx(a.mean() - b.mean())
    assert document["difference_interval"] == list(difference_interval(only_a, only_b, 700))
    test = mcnemar(only_a, only_b)
    assert (document["mcnemar"]["p_value"], document["mcnemar"]["method"]) == (
        test.p_value,
        test.method,
    )
    assert document["smallest_difference"] == smallest_difference(only_a + only_b, 700)
    assert document["same_answer"] == (answers[0] == answers[1]).sum()
    for index, row in enumerate(document["classes"]):
        inside = part.labels == index
        assert row["label"] == names[index]
        assert row["count"] == inside.sum()
        assert row["only_a_right"] == (a & ~b & inside).sum()
        assert row["only_b_right"] == (b & ~a & inside).sum()
        assert row["both_right"] == (a & b & inside).sum()
        assert row["both_wrong"] == (~a & ~b & inside).sum()
        assert row["different_answers"] == ((answers[0] != answers[1]) & inside).sum()
    for row in document["pairs"]:
        pair = (answers[0] == names.index(row["a"])) & (answers[1] == names.index(row["b"]))
        assert row["a"] != row["b"]
        assert row["count"] == pair.sum()
        assert (row["a_right"], row["b_right"]) == ((a & pair).sum(), (b & pair).sum())
    assert json.loads(json.dumps(document)) == document
    text = "\n".join(comparison_lines(comparison))
    for word in ("majority baseline", "only A", "McNemar", "both wrong", "A says"):
        assert word in text


def test_an_opening_is_recorded_for_both(predictors: Pair, data: Path) -> None:
    comparison = api.compare(*predictors, data, split="test")
    lines = [json.loads(line) for line in (data / TEST_OPENINGS).read_text().splitlines()]
    assert [line["bundle"] for line in lines] == [p.bundle.id for p in predictors]
    assert comparison.document["test_openings"] == 2
    assert comparison.document["clean"]["images"] == 11
    text = "\n".join(comparison_lines(comparison))
    assert "opened 2 times" in text
    assert "on the 11 images unseen in train and validation" in text


def test_a_bundle_does_not_beat_itself(predictors: Pair, data: Path) -> None:
    document = api.compare(predictors[0], predictors[0], data).document
    assert document["mcnemar"]["p_value"] == 1
    assert document["same_answer"] == document["count"]
    assert document["winner"] is None
    assert verdict(document).headline == "no difference"


def test_bundles_of_other_classes_are_not_compared(predictors: Pair, data: Path) -> None:
    a, b = predictors
    lineage = json.loads(json.dumps(b.bundle.contents.lineage))
    lineage["config"]["data"]["classes"] = {"angry": "fear", "fear": "angry"}
    names = ("fear", "disgust", "angry", *b.class_names[3:])
    contents = replace(b.bundle.contents, lineage=lineage, class_names=names)
    other = Predictor(replace(b.bundle, contents=contents), "fp32", "cpu")
    with pytest.raises(DataError, match="do not answer the same question"):
        api.compare(a, other, data, split="test")
    assert not (data / TEST_OPENINGS).exists()


def paired(only_a: int, only_b: int, count: int) -> dict[str, object]:
    p = mcnemar(only_a, only_b)
    return {
        "images": count,
        "only_a_right": only_a,
        "only_b_right": only_b,
        "difference": (only_a - only_b) / count,
        "difference_interval": list(difference_interval(only_a, only_b, count)),
        "mcnemar": {"method": p.method, "p_value": p.p_value},
        "smallest_difference": smallest_difference(only_a + only_b, count),
        "winner": None if p.p_value >= 0.05 else "a" if only_a > only_b else "b",
    }


def test_verdicts_in_plain_words() -> None:
    won = verdict(paired(150, 86, 3589))
    assert won.headline == "A beats B by 1.8 points"
    assert "interval of the difference 0.9 to 2.6 points" in won.detail
    assert "p = 4.1e-05" in won.detail
    lost = verdict(paired(86, 150, 3589))
    assert lost.headline == "B beats A by 1.8 points"
    assert lost.detail == won.detail
    open_ = verdict(paired(100, 110, 3589))
    assert open_.headline == "cannot tell which is better"
    assert "A minus B is -0.3 points" in open_.detail
    assert "these 3,589 images could show is about 0.8 points" in open_.detail
    assert "exact binomial" in verdict(paired(3, 2, 100)).detail
