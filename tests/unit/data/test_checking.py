"""What a check finds in a small set with planted faults."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_ray.data.checking import check_prepared, pictures, read_rows
from fer_ray.data.prepared import TEST_OPENINGS
from fer_ray.errors import DataError
from tests.unit.data.prepared_sets import three_splits, with_faults, write_prepared


def test_planted_faults_are_found_and_counted(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", with_faults(), rows_a_part=10)
    report = check_prepared(prepared)
    duplicates = report.duplicates
    # Groups: train 0 1 2 and validation 3; train 3 4; train 5 and two more; validation 1 and
    # test 1; validation 2 and test 2.
    assert duplicates.surplus == 3 + 1 + 2 + 1 + 1
    assert duplicates.num_distinct == 70 - 8
    assert duplicates.within == {"train": 3, "validation": 0, "test": 0}
    labels = [{row.label for row in group} for group in report.conflicting]
    assert duplicates.num_conflicting_groups == len(labels)
    assert {"happy", "sad"} <= set.union(*labels)
    assert all(len(found) > 1 for found in labels)
    validation, test = report.leaks
    assert (validation.num_images, validation.num_in_train, validation.num_clean) == (14, 2, 12)
    assert (test.num_in_train, test.num_in_validation, test.num_clean) == (1, 3, 11)
    assert report.blanks == {"train": 1, "validation": 1, "test": 1}
    assert len(report.leaked) == 4
    assert report.class_names == tuple(report.counts["train"])
    assert json.loads(json.dumps(report.as_dict()))["duplicates"]["surplus"] == 8


def test_a_clean_set_has_no_faults(tmp_path: Path) -> None:
    report = check_prepared(write_prepared(tmp_path / "set", three_splits()))
    assert report.duplicates.surplus == 0
    assert (report.conflicting, report.leaked, report.blank) == ((), (), ())
    assert [leak.num_clean for leak in report.leaks] == [14, 14]
    assert report.verdict.kind == "other"


def test_figures_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    splits = three_splits()
    prepared = write_prepared(tmp_path / "set", splits, rows_a_part=7)
    report = check_prepared(prepared)
    images, labels = splits["train"]
    assert report.figures.mean == pytest.approx(images.mean() / 255)
    assert report.figures.std == pytest.approx(images.std() / 255)
    assert report.histogram.tolist() == np.bincount(images.ravel(), minlength=256).tolist()
    for index in range(7):
        chosen = images[labels == index]
        if len(chosen):
            difference = report.mean_images[index] - chosen.mean(axis=0)
            assert np.abs(difference).max() <= 0.5


def test_of_the_test_split_no_image_is_read(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", with_faults())
    (part,) = prepared.files("test")
    table = pq.read_table(part)
    no_images = pa.array([b""] * table.num_rows, pa.binary())
    place = table.column_names.index("image")
    pq.write_table(table.set_column(place, "image", no_images), part)
    report = check_prepared(prepared)
    assert report.blanks["test"] == 1
    shown = pictures(prepared, read_rows(prepared, "test"))
    assert shown == {}


def test_the_opening_of_the_test_split_is_written_down(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", three_splits())
    assert [check_prepared(prepared).test_openings for _ in range(2)] == [1, 2]
    lines = (prepared.path / TEST_OPENINGS).read_text().splitlines()
    assert [json.loads(line)["command"] for line in lines] == ["data check"] * 2


def test_without_a_test_split_nothing_is_opened(tmp_path: Path) -> None:
    splits = three_splits()
    del splits["test"]
    prepared = write_prepared(tmp_path / "set", splits)
    report = check_prepared(prepared)
    assert report.test_openings == 0
    assert not (prepared.path / TEST_OPENINGS).exists()


def test_pictures_are_the_rows_images(tmp_path: Path) -> None:
    splits = three_splits()
    prepared = write_prepared(tmp_path / "set", splits, rows_a_part=5)
    rows = [row for row in read_rows(prepared, "train") if row.number in (0, 7, 41)]
    found = pictures(prepared, rows)
    for row in rows:
        assert np.array_equal(found[row.sha256], splits["train"][0][row.number])


# --- refusals -------------------------------------------------------------------------------------


def test_an_image_that_is_not_the_hashed_one(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", three_splits())
    (part,) = prepared.files("validation")
    table = pq.read_table(part)
    images = table.column("image").to_pylist()
    images[3] = bytes(48 * 48)
    place = table.column_names.index("image")
    pq.write_table(table.set_column(place, "image", pa.array(images, pa.binary())), part)
    with pytest.raises(DataError, match="is not the one its hash was taken of"):
        check_prepared(prepared)


def test_rows_missing_from_a_part(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", three_splits())
    (part,) = prepared.files("train")
    pq.write_table(pq.read_table(part).slice(0, 30), part)
    with pytest.raises(
        DataError, match="has 30 rows of the train split, but its manifest names 42"
    ):
        check_prepared(prepared)


def test_a_damaged_part(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", three_splits())
    (part,) = prepared.files("train")
    part.write_bytes(part.read_bytes()[:400])
    with pytest.raises(DataError, match=r"part-train-00000\.parquet cannot be read"):
        check_prepared(prepared)


def test_a_class_that_the_manifest_does_not_know(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", three_splits(), changes={"class_names": ["angry"]})
    with pytest.raises(DataError, match="unknown class"):
        check_prepared(prepared)
