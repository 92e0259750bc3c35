"""A bundle on a split: what is counted, what is written down first, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.prepared import TEST_OPENINGS, open_prepared, read_split
from fer_ray.errors import DataError, OutputExistsError, UserError
from fer_ray.evaluation import on_split
from fer_ray.evaluation.evaluate import figures
from fer_ray.metrics import wilson_interval
from fer_ray.report.evaluation_text import evaluation_lines
from fer_ray.runs import RunDirectory
from tests.unit.data.prepared_sets import three_splits, write_prepared

Pair = tuple[Predictor, Predictor]


def openings(data: Path) -> list[dict[str, str]]:
    place = data / TEST_OPENINGS
    return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []


def add_column(data: Path, name: str, value: Callable[[int], str | None]) -> None:
    """Add a column to every part; `value` is told the row's number."""
    for file in data.glob("part-*.parquet"):
        table = pq.read_table(file)
        column = pa.array([value(row) for row in range(len(table))], pa.string())
        pq.write_table(table.append_column(name, column), file)


def test_every_figure_is_that_of_the_logits(predictors: Pair, data: Path) -> None:
    predictor = predictors[0]
    document = api.evaluate(predictor, data).document
    split = read_split(open_prepared(data), "validation")
    temperature = predictor.bundle.contents.calibration.temperature
    for views, found in (("single", document), ("flip", document["tta"])):
        logits = predictor.logits(split.images, views=views)
        expected = figures(logits, split.labels, predictor.class_names, temperature)
        assert found["views"] == views
        assert {key: found[key] for key in expected} == expected
    assert document["log_loss"] != document["tta"]["log_loss"]
    assert document["bundle"]["id"] == predictor.bundle.id
    assert document["inference"] == predictor.inference
    assert document["data"]["is_training_data"] is False
    assert api.evaluate(predictor, data, views="single").document["tta"] is None
    assert json.loads(json.dumps(document)) == document
    reliability = document["reliability"]
    assert sum(row["count"] for row in reliability) == document["count"] == 14
    ece = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in reliability) / 14
    assert document["ece"] == pytest.approx(ece, abs=1e-12)


@pytest.mark.parametrize(
    ("split", "in_train", "in_validation", "clean"),
    [("validation", [0, 3], [], 12), ("test", [0], [0, 1, 2], 11)],
)
def test_clean_accuracy_leaves_out_what_was_seen(
    predictors: Pair,
    data: Path,
    split: str,
    in_train: list[int],
    in_validation: list[int],
    clean: int,
) -> None:
    evaluation = api.evaluate(predictors[0], data, split=split)
    part, found = evaluation.split, evaluation.document["clean"]
    number = np.array([int(Path(source).stem) for source in part.sources])
    assert sorted(number[part.in_train]) == in_train
    assert sorted(number[part.in_validation]) == in_validation
    assert (found["num_in_train"], found["num_in_validation"]) == (
        len(in_train),
        len(in_validation),
    )
    assert found["count"] == clean
    right = evaluation.probabilities.argmax(axis=1) == part.labels
    kept = ~np.isin(number, in_train + in_validation)
    assert found["correct"] == right[kept].sum()
    assert found["accuracy"] == right[kept].mean()
    assert found["accuracy_interval"] == list(wilson_interval(found["correct"], clean))


def test_the_test_split_is_recorded_before_it_is_read(predictors: Pair, data: Path) -> None:
    for number in (1, 2):
        document = api.evaluate(predictors[0], data, split="test").document
        assert document["test_openings"] == number == len(openings(data))
    assert openings(data)[0]["bundle"] == predictors[0].bundle.id
    assert openings(data)[0]["command"] == "evaluate"
    (part,) = data.glob("part-test-*.parquet")
    part.write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="cannot be read"):
        api.evaluate(predictors[0], data, split="test")
    assert len(openings(data)) == 3
    assert api.evaluate(predictors[0], data).document["test_openings"] == 0
    assert len(openings(data)) == 3


def test_what_can_be_refused_is_refused_before_the_test_split_is_opened(
    predictors: Pair, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.html").write_text("mine")
    other = write_prepared(tmp_path / "other", three_splits(), ("a", "b", "c", "d", "e", "f", "g"))
    large = write_prepared(tmp_path / "large", three_splits())
    for place, options, error, words in (
        (data, {"group_column": "person"}, DataError, "no column 'person'"),
        (data, {"group_column": "image"}, DataError, "no column 'image'"),
        (data, {"views": "3"}, UserError, "views is one of single"),
        (data, {"html": tmp_path / "mine.html"}, OutputExistsError, "not a page"),
        (data, {"with_images": True}, UserError, "no page is asked for"),
        (other.path, {}, DataError, "the data have the classes a, b"),
        (large.path, {}, DataError, "images of 48 pixels, but the bundle takes 24"),
    ):
        with pytest.raises(error, match=words):
            api.evaluate(predictors[0], place, split="test", **options)  # type: ignore[arg-type]
        assert not openings(place)
    for split in ("train", "all"):
        with pytest.raises(UserError, match="validation or test"):
            api.evaluate(predictors[0], data, split=split)
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_an_opening_that_cannot_be_recorded_keeps_the_split_closed(
    predictors: Pair, data: Path
) -> None:
    (data / TEST_OPENINGS).mkdir()
    with pytest.raises(DataError, match="written down before it is read"):
        api.evaluate(predictors[0], data, split="test")


def test_a_split_that_is_not_there(predictors: Pair, tmp_path: Path) -> None:
    splits = three_splits()
    del splits["test"]
    data = write_prepared(tmp_path / "set", splits).path
    with pytest.raises(DataError, match="has no test split; it has train, validation"):
        api.evaluate(predictors[0], data, split="test")
    assert not openings(data)


# --- groups ---------------------------------------------------------------------------------------


def test_figures_a_group(predictors: Pair, data: Path) -> None:
    add_column(data, "group", lambda row: None if row % 7 == 0 else f"person {row % 3}")
    evaluation = api.evaluate(predictors[0], data, group_column="group")
    groups = evaluation.document["groups"]
    assert groups["column"] == "group"
    part = evaluation.split
    assert part.groups is not None
    right = evaluation.probabilities.argmax(axis=1) == part.labels
    rows = groups["rows"]
    assert {row["group"] for row in rows} == {"(none)", "person 0", "person 1", "person 2"}
    assert [row["count"] for row in rows] == sorted((row["count"] for row in rows), reverse=True)
    for row in rows:
        inside = np.array(part.groups) == row["group"]
        assert row["count"] == inside.sum()
        assert row["accuracy"] == pytest.approx(right[inside].mean())
        assert row["accuracy_interval"] == list(wilson_interval(row["correct"], row["count"]))
        labels = part.labels[inside]
        assert row["majority_accuracy"] == np.bincount(labels).max() / len(labels)
    assert sum(row["count"] for row in rows) == 14
    text = "\n".join(evaluation_lines(evaluation))
    assert "person 2" in text


def test_too_many_groups_are_refused(
    predictors: Pair, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(api.evaluate(predictors[0], data, group_column="source").document["groups"]["rows"])
    monkeypatch.setattr(on_split, "MAX_GROUPS", 13)
    with pytest.raises(DataError, match="14 different values in 14 images; at most 13"):
        api.evaluate(predictors[0], data, group_column="source")


# --- text, runs -----------------------------------------------------------------------------------


def test_the_text_names_every_figure(predictors: Pair, data: Path) -> None:
    evaluation = api.evaluate(predictors[0], data, split="test")
    lines = list(evaluation_lines(evaluation))
    text = "\n".join(lines)
    document = evaluation.document
    for name in (
        "accuracy ",
        "clean accuracy",
        "macro F1",
        "balanced accuracy",
        "top-2 accuracy",
        "log loss",
        "Brier score",
        "before temperature",
        "majority baseline",
        "image and mirror image",
        "15 bins of equal width",
        "not sure",
        "precision",
    ):
        assert name in text, name
    assert f"(always {document['majority_label']})" in text
    assert f"{100 * document['accuracy']:.1f} %" in text
    assert "1 of 14 are identical to one of train, 3 to one of validation" in text
    assert lines[-1].startswith("the test split has been opened once")
    assert max(map(len, lines[1:])) <= 110, "but for the path of the data"


def test_a_run_keeps_every_evaluation(predictors: Pair, data: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create("train", "name: x\n", "fingerprint")
    evaluation = api.evaluate(predictors[0], data, views="single")
    first = api.keep_evaluation(str(run.path), evaluation)
    second = api.keep_evaluation(str(run.path), evaluation)
    assert first is not None
    assert second is not None
    assert first != second
    assert first.parent == run.path / "evaluations"
    assert first.name.startswith(f"validation-{predictors[0].bundle.id[:12]}-")
    assert json.loads(first.read_text()) == evaluation.document
    assert api.keep_evaluation(str(predictors[0].bundle.path), evaluation) is None
