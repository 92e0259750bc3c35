"""Splits that are made: deterministic, stratified, copies and groups kept together."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_ray.data.splitting import DEFAULT_RATIOS, Groups, Images, parse_splits
from fer_ray.errors import DataError, UserError
from fer_ray.labels import EXPRESSIONS
from tests.unit.data.forms import csv_text, faces, png, write_parquet
from tests.unit.data.kaggle import make_folder
from tests.unit.data.test_forms import imported


def flat(path: Path) -> Path:
    """<class>/<person>_<number>.png."""
    for number, (pixels, label, _) in enumerate(faces()):
        folder = path / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"p{number % 8}_{number}.png").write_bytes(png(pixels))
    return path


def table(out: Path) -> list[dict[str, object]]:
    parts = [pq.read_table(path) for path in out.glob("part-*.parquet")]
    return pa.concat_tables(parts).to_pylist()


def split_of(row: dict[str, object]) -> str:
    return str(row["sample_id"]).split("-")[0]


def test_a_flat_folder_gets_splits_and_says_so(tmp_path: Path) -> None:
    report = imported(flat(tmp_path / "flat"), tmp_path / "out")
    totals = {split: sum(row.values()) for split, row in report.counts.items()}
    assert sum(totals.values()) == 40
    assert totals["train"] >= 24
    assert min(totals.values()) >= 3
    assert report.splits.startswith("made: train 80 %, validation 10 %, test 10 %; by the images'")
    assert not list((tmp_path / "out").glob("*undivided*"))


def test_the_competition_train_csv_gives_a_tenth_to_validation(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(csv_text(("emotion", "pixels")))
    report = imported(tmp_path / "train.csv", tmp_path / "out")
    assert report.splits.startswith("made: validation out of train (train 90 %, validation 10 %)")
    assert set(report.counts) == {"train", "validation"}
    for name in EXPRESSIONS:
        of_train, of_validation = (report.counts[split][name] for split in ("train", "validation"))
        assert of_validation == (1 if of_train + of_validation >= 3 else 0)
    # The mean is that of the train that is left.
    images = [row["image"] for row in table(tmp_path / "out") if split_of(row) == "train"]
    pixels = [value for image in images for value in bytes(image)]  # type: ignore[call-overload]
    assert report.mean == pytest.approx(sum(pixels) / len(pixels) / 255)


def test_splits_do_not_rest_on_the_order_of_rows(tmp_path: Path) -> None:
    head, *lines = csv_text(("emotion", "pixels")).splitlines()
    prints = set()
    for number in range(2):
        random.Random(number).shuffle(lines)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "some.csv").write_text("\n".join([head, *lines]) + "\n")
        prints.add(imported(folder, tmp_path / f"out{number}").fingerprint)
    assert len(prints) == 1


def test_copies_of_an_image_stay_on_one_side(tmp_path: Path) -> None:
    head, *lines = csv_text(("emotion", "pixels")).splitlines()
    copies = lines + [line for line in lines for _ in range(3)]
    copies += [f"{(int(line[0]) + 1) % 7}{line[1:]}" for line in lines[:9]]  # other labels
    (tmp_path / "train.csv").write_text("\n".join([head, *copies]) + "\n")
    report = imported(tmp_path / "train.csv", tmp_path / "out")
    assert report.surplus_duplicates == len(copies) - 40
    sides: dict[object, set[str]] = {}
    for row in table(tmp_path / "out"):
        sides.setdefault(row["sha256"], set()).add(split_of(row))
    assert len(sides) == 40
    assert all(len(side) == 1 for side in sides.values())


def test_ratios_take_the_place_of_the_sources_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    report = imported(folder, tmp_path / "out", splits="50:50:0")
    assert set(report.counts) == {"train", "validation"}
    assert report.splits.startswith("made: train 50 %, validation 50 % (its own, where")
    with pytest.raises(UserError, match="TRAIN:VALIDATION:TEST"):
        imported(folder, tmp_path / "none", splits="keep")
    for wrong in ("0:1:1", "1:0:1", "1:1", "a:b:c", "1:1:-1", "nan:1:1", "inf:1:1"):
        with pytest.raises(UserError):
            parse_splits(wrong)


def test_official_refuses_what_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no splits"):
        imported(flat(tmp_path / "flat"), tmp_path / "out", splits="official")
    folder = make_folder(tmp_path / "folder", splits=("train", "test"))
    with pytest.raises(DataError, match="has no validation images"):
        imported(folder, tmp_path / "out", splits="official")
    report = imported(folder, tmp_path / "out")
    assert sum(report.counts["test"].values()) == 10
    assert sum(report.counts["train"].values()) + sum(report.counts["validation"].values()) == 20


def test_images_with_and_without_a_split(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    (folder / "happy").mkdir()
    Image.new("L", (48, 48)).save(folder / "happy" / "a.png")
    with pytest.raises(DataError, match=r"has no split, but .* has one"):
        imported(folder, tmp_path / "out")


# --- groups ---------------------------------------------------------------------------------------


def test_a_group_from_the_file_name_stays_in_one_split(tmp_path: Path) -> None:
    imported(flat(tmp_path / "flat"), tmp_path / "out", group_by=r"(p\d+)_")
    sides: dict[object, set[str]] = {}
    for row in table(tmp_path / "out"):
        sides.setdefault(row["group"], set()).add(split_of(row))
    assert sorted(map(str, sides)) == [f"p{number}" for number in range(8)]
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) == {"train", "validation", "test"}


def test_a_group_from_a_column(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text(csv_text(("emotion", "pixels", " Person")))
    parquet = write_parquet(tmp_path / "hf", splits=("train",))
    imported(tmp_path / "some.csv", tmp_path / "a", group_by="person")
    imported(parquet, tmp_path / "b", group_by="person")
    for out in ("a", "b"):
        sides: dict[object, set[str]] = {}
        for row in table(tmp_path / out):
            sides.setdefault(row["group"], set()).add(split_of(row))
        assert all(len(side) == 1 for side in sides.values())


def test_groups_across_the_sources_own_splits_are_told(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text(csv_text(("emotion", "pixels", "Usage", "person")))
    with pytest.raises(DataError, match=r"5 group\(s\) .* such as 'p0': test and train"):
        imported(tmp_path / "some.csv", tmp_path / "out", group_by="person")
    imported(tmp_path / "some.csv", tmp_path / "out", group_by="person", splits="60:20:20")
    assert len(table(tmp_path / "out")) == 40


def test_groups_that_cannot_be(tmp_path: Path) -> None:
    folder = flat(tmp_path / "flat")
    for text, words in (
        ("(", "is no pattern"),
        ("p", "has 0 groups"),
        ("(q)_", "finds no group in"),
    ):
        with pytest.raises(UserError, match=words):
            imported(folder, tmp_path / "out", group_by=text)
    (tmp_path / "some.csv").write_text(csv_text(("emotion", "pixels")))
    with pytest.raises(DataError, match="is no column of"):
        imported(tmp_path / "some.csv", tmp_path / "out", group_by="person")
    parquet = write_parquet(tmp_path / "hf", splits=("train",))
    with pytest.raises(UserError, match=r"has the columns image, label, person"):
        imported(parquet, tmp_path / "out", group_by="persona")


images = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=200)


@settings(max_examples=50, deadline=None)
@given(images)
def test_division_is_a_function_of_the_images_alone(pairs: list[tuple[int, int]]) -> None:
    divided = []
    for order in (pairs, pairs[::-1]):
        seen = Images()
        for number, label in order:
            seen.add(number.to_bytes(16, "big"), label, divisible=True)
        divided.append(seen.divide(DEFAULT_RATIOS))
        assert seen.surplus == len(pairs) - len({number for number, _ in pairs})
    assert divided[0] == divided[1]
    assert set(divided[0]) == {number.to_bytes(16, "big") for number, _ in pairs}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 3)), min_size=1))
def test_groups_that_share_an_image_go_together(rows: list[tuple[int, int, int]]) -> None:
    groups = Groups(4)
    for group, number, label in rows:
        groups.add(f"g{group}", number.to_bytes(16, "big"), label, None)
    found = groups.divide((0.6, 0.2, 0.2))
    side: dict[int, int] = {}
    for group, number, _ in rows:
        assert side.setdefault(number, found[f"g{group}"]) == found[f"g{group}"]


def test_quotas_are_exact_without_copies() -> None:
    seen = Images()
    for number in range(700):
        seen.add(number.to_bytes(16, "big"), number % 7, divisible=True)
    found = list(seen.divide(DEFAULT_RATIOS).values())
    assert [found.count(split) for split in range(3)] == [560, 70, 70]
