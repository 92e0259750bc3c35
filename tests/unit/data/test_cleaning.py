"""Cleaned copies: what is dropped, what stays to the byte, and what they say of themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

from fer_ray.data.checking import check_prepared
from fer_ray.data.cleaning import write_cleaned
from fer_ray.data.prepared import TEST_OPENINGS, open_prepared, read_split
from fer_ray.errors import DataError, OutputExistsError
from tests.unit.data.prepared_sets import three_splits, with_faults, write_prepared


@pytest.mark.parametrize(
    ("leaks", "duplicates", "dropped"),
    [
        (True, False, (4, 0, 0)),  # train 0, 1, 2 and 5
        (False, True, (0, 3, 1)),  # train 0, 1, 2; one of 3 and 4
        (True, True, (4, 0, 1)),
    ],
)
def test_what_is_dropped(
    tmp_path: Path, leaks: bool, duplicates: bool, dropped: tuple[int, int, int]
) -> None:
    prepared = write_prepared(tmp_path / "set", with_faults(), rows_a_part=9)
    report = write_cleaned(
        prepared, tmp_path / "clean", drop_leaks=leaks, drop_duplicates=duplicates
    )
    assert (report.num_leaks, report.num_conflicting, report.num_duplicates) == dropped
    cleaned = open_prepared(tmp_path / "clean")
    assert cleaned.count("train") == 42 - sum(dropped) == len(read_split(cleaned, "train"))
    found = check_prepared(cleaned)
    if leaks:
        assert [leak.num_in_train for leak in found.leaks] == [0, 0]
    if duplicates:
        assert found.duplicates.within["train"] == 0
    assert found.verdict.kind == "cleaned"
    assert found.verdict.text == report.verdict
    assert report.verdict.startswith("cleaned: not FER2013 as published, less training images: ")


def test_validation_and_test_stay_to_the_byte_with_the_openings(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", with_faults())
    check_prepared(prepared)
    write_cleaned(prepared, tmp_path / "clean", drop_leaks=True, drop_duplicates=True)
    for split in ("validation", "test"):
        (before,) = prepared.files(split)
        assert (tmp_path / "clean" / before.name).read_bytes() == before.read_bytes()
    openings = (tmp_path / "clean" / TEST_OPENINGS).read_text()
    assert openings == (prepared.path / TEST_OPENINGS).read_text()


def test_the_manifest_is_that_of_the_images_left(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", with_faults(), rows_a_part=9)
    report = write_cleaned(prepared, tmp_path / "clean", drop_leaks=True, drop_duplicates=True)
    cleaned = open_prepared(tmp_path / "clean")
    train = read_split(cleaned, "train")
    assert cleaned.info["train_mean"] == pytest.approx(train.images.mean() / 255)
    assert cleaned.info["train_std"] == pytest.approx(train.images.std() / 255)
    # The same images written anew have the same fingerprint: it says what is in it, not how.
    splits = {name: read_split(cleaned, name) for name in ("train", "validation", "test")}
    anew = write_prepared(
        tmp_path / "anew", {name: (part.images, part.labels) for name, part in splits.items()}
    )
    assert anew.fingerprint == cleaned.fingerprint == report.fingerprint != prepared.fingerprint
    assert anew.info["surplus_duplicates"] == cleaned.info["surplus_duplicates"]
    assert cleaned.info["cleaned"] == {
        "num_leaks": 4,
        "num_conflicting": 0,
        "num_duplicates": 1,
        "from_fingerprint": prepared.fingerprint,
        "from_verdict": "not FER2013 as published",
    }
    assert json.dumps(cleaned.info["counts"]["train"])


def test_a_part_that_is_dropped_whole_leaves_no_gap(tmp_path: Path) -> None:
    splits = three_splits()
    splits["validation"][0][:14] = splits["train"][0][14:28]
    prepared = write_prepared(tmp_path / "set", splits, rows_a_part=14)
    write_cleaned(prepared, tmp_path / "clean", drop_leaks=True, drop_duplicates=False)
    cleaned = open_prepared(tmp_path / "clean")
    assert len(cleaned.files("train")) == 2
    assert np.array_equal(
        np.sort(read_split(cleaned, "train").images.reshape(28, -1).sum(axis=1)),
        np.sort(splits["train"][0][[*range(14), *range(28, 42)]].reshape(28, -1).sum(axis=1)),
    )


def test_nothing_to_drop_is_a_copy_that_says_so(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "set", three_splits())
    report = write_cleaned(prepared, tmp_path / "clean", drop_leaks=True, drop_duplicates=True)
    assert report.num_dropped == 0
    assert report.verdict.endswith("less training images: none")
    assert report.fingerprint == prepared.fingerprint


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    splits = three_splits()
    splits["train"] = (splits["validation"][0].copy(), splits["validation"][1].copy())
    prepared = write_prepared(tmp_path / "set", splits)
    with pytest.raises(DataError, match="nothing of the train split"):
        write_cleaned(prepared, tmp_path / "clean", drop_leaks=True, drop_duplicates=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    with pytest.raises(OutputExistsError):
        write_cleaned(prepared, prepared.path, drop_leaks=True, drop_duplicates=False)
