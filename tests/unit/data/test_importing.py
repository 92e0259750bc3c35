"""Import: the same rows from every form, whole or not at all, corrupt images told."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fer_ray.data import writing
from fer_ray.data.importing import ImportReport, import_images
from fer_ray.data.prepared import SCHEMA, open_prepared
from fer_ray.data.sample import write_sample
from fer_ray.data.sources import archives
from fer_ray.errors import DataError, OutputExistsError
from fer_ray.labels import EXPRESSIONS
from tests.unit.data.kaggle import make_folder, make_zip


def imported(source: Path, out: Path, on_error: str = "stop", size_px: int = 48) -> ImportReport:
    return import_images(source, out, size_px=size_px, on_error=on_error)


def rows(out: Path) -> list[tuple[object, ...]]:
    """All rows, but for where they came from, in order of their ids."""
    tables = [pq.read_table(path).cast(SCHEMA) for path in sorted(out.glob("part-*.parquet"))]
    columns = ("sample_id", "image", "label", "label_name", "sha256")
    return sorted(tuple(row[c] for c in columns) for row in pa.concat_tables(tables).to_pylist())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "fer2013")


def test_a_folder_and_its_zip_give_the_same_rows(folder: Path, tmp_path: Path) -> None:
    archive = make_zip(folder, tmp_path / "plain.zip")
    nested = make_zip(folder, tmp_path / "nested.zip", prefix="archive/fer2013/")
    reports = [
        imported(source, tmp_path / f"out{number}")
        for number, source in enumerate((folder, archive, nested))
    ]
    assert len({report.fingerprint for report in reports}) == 1
    first = rows(tmp_path / "out0")
    assert len(first) == 40
    assert first == rows(tmp_path / "out1") == rows(tmp_path / "out2")


def test_rows_say_what_the_images_are(folder: Path, tmp_path: Path) -> None:
    imported(folder, tmp_path / "out")
    seen = 0
    for split, prefix in (("train", "Training"), ("validation", "Public"), ("test", "Private")):
        (part,) = (tmp_path / "out").glob(f"part-{split}-*.parquet")
        table = pq.read_table(part)
        assert table.schema.metadata[b"class_names"].decode() == ",".join(EXPRESSIONS)
        for row in table.to_pylist():
            assert Path(row["source"]).name.startswith(prefix)
            assert row["label_name"] == Path(row["source"]).parent.name
            assert EXPRESSIONS[row["label"]] == row["label_name"]
            with Image.open(folder / row["source"]) as image:
                assert row["image"] == image.tobytes()
            assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
            assert row["sample_id"] == f"{split}-{row['sha256'][:16]}-{row['label']}-0"
            seen += 1
    assert seen == 40


def test_the_manifest_agrees_with_the_rows(folder: Path, tmp_path: Path) -> None:
    report = imported(folder, tmp_path / "out")
    prepared = open_prepared(tmp_path / "out")
    assert {split: prepared.count(split) for split in ("train", "validation", "test")} == {
        "train": 20,
        "validation": 10,
        "test": 10,
    }
    pixels = np.stack(
        [
            np.asarray(Image.open(path), dtype=np.float64) / 255
            for path in sorted((folder / "train").rglob("*.png"))
        ]
    )
    assert report.mean == pytest.approx(pixels.mean(), abs=1e-9)
    assert report.std == pytest.approx(pixels.std(), abs=1e-9)
    assert (prepared.info["train_mean"], prepared.info["train_std"]) == (report.mean, report.std)
    assert prepared.fingerprint == report.fingerprint
    assert prepared.class_names == EXPRESSIONS


def test_the_fingerprint_is_that_of_images_labels_and_splits(folder: Path, tmp_path: Path) -> None:
    before = imported(folder, tmp_path / "a").fingerprint
    image = next((folder / "train" / "happy").iterdir())
    renamed = image.rename(image.with_name("Training_99999.png"))
    assert imported(folder, tmp_path / "b").fingerprint == before, "a name is not the data"
    moved = folder / "train" / "sad" / renamed.name
    moved.parent.mkdir(exist_ok=True)
    renamed.rename(moved)
    assert imported(folder, tmp_path / "c").fingerprint != before


def test_identical_images_are_told_apart_and_counted(folder: Path, tmp_path: Path) -> None:
    image = next((folder / "train" / "happy").iterdir())
    for name in ("Training_801.png", "Training_802.png"):
        (image.parent / name).write_bytes(image.read_bytes())
    report = imported(folder, tmp_path / "out")
    assert report.surplus_duplicates == 2
    ids = [row[0] for row in rows(tmp_path / "out")]
    assert len(set(ids)) == len(ids) == 42
    assert sum(str(sample_id).endswith(("-1", "-2")) for sample_id in ids) == 2


def test_the_official_split_stands_in_the_names_even_in_one_folder(tmp_path: Path) -> None:
    for name in ("Training_1", "PublicTest_2", "PrivateTest_3"):
        path = tmp_path / "source" / "happy" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48), len(name)).save(path)
    report = imported(tmp_path / "source", tmp_path / "out")
    assert {split: row["happy"] for split, row in report.counts.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


def test_without_official_names_the_top_folder_decides(tmp_path: Path) -> None:
    for number, place in enumerate(("train/anger", "val/Happiness", "test/neutral")):
        path = tmp_path / "source" / place / "im0.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (48, 48), number).save(path)
    counts = imported(tmp_path / "source", tmp_path / "out").counts
    assert counts["train"]["angry"] == 1
    assert counts["validation"]["happy"] == 1
    assert counts["test"]["neutral"] == 1


def test_images_of_another_size_are_resized(folder: Path, tmp_path: Path) -> None:
    imported(folder, tmp_path / "out", size_px=32)
    assert {len(row[1]) for row in rows(tmp_path / "out")} == {32 * 32}  # type: ignore[arg-type]
    assert open_prepared(tmp_path / "out").size_px == 32


def test_many_images_become_several_parts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(folder, tmp_path / "one")
    monkeypatch.setattr(writing, "_ROWS_A_PART", 8)
    imported(folder, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("part-train-*.parquet"))) == 3
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    prepared = open_prepared(tmp_path / "many")
    assert len(prepared.files("train")) == 3
    prepared.files("train")[1].unlink()
    with pytest.raises(DataError, match=r"has 2 part\(s\) of the train split"):
        prepared.files("train")


# --- refusals -------------------------------------------------------------------------------------


def refused(source: Path, out: Path, on_error: str = "stop") -> str:
    """The error's text; nothing of the output may be left."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(DataError) as caught:
        imported(source, out, on_error)
    assert sorted(out.parent.iterdir()) == before, "neither a directory nor a temporary is left"
    return str(caught.value)


def test_an_unknown_class_folder_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "happy").rename(folder / "train" / "joyful")
    text = refused(folder, tmp_path / "out")
    assert "'train/joyful/Training_" in text
    assert "Known classes: angry" in text


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "words.zip").write_text("words")
    assert "neither a folder nor a zip" in refused(tmp_path / "words.zip", tmp_path / "out")
    assert "does not exist" in refused(tmp_path / "none.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "holds no image" in refused(tmp_path / "empty.zip", tmp_path / "out")


def test_a_member_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/happy/Training_1.png", b"\0" * 5_000_000)
    assert "unpacks from" in refused(path, tmp_path / "out")


def test_an_archive_with_too_many_members_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 39)
    assert "at most 39" in refused(make_zip(folder, tmp_path / "a.zip"), tmp_path / "out")


def test_a_damaged_member_is_told_by_name(folder: Path, tmp_path: Path) -> None:
    path = make_zip(folder, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[5]
    data = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    data[start + 20 : start + 60] = bytes(40)
    path.write_bytes(data)
    assert member.filename in refused(path, tmp_path / "out")


def test_a_corrupt_image_stops_or_is_skipped_and_told(folder: Path, tmp_path: Path) -> None:
    broken = folder / "train" / "happy" / "Training_900.png"
    whole = next((folder / "train" / "happy").iterdir()).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    text = refused(folder, tmp_path / "out")
    assert "train/happy/Training_900.png" in text
    assert "--on-error skip" in text
    report = imported(folder, tmp_path / "out", "skip")
    ((name, why),) = report.skipped
    assert name == "train/happy/Training_900.png"
    assert why
    assert len(rows(tmp_path / "out")) == 40
    assert "1 skipped at import" in report.verdict


def test_a_failure_in_the_middle_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_ROWS_A_PART", 4)  # parts are on disk before the failure
    (folder / "train" / "surprise").mkdir(exist_ok=True)
    (folder / "train" / "surprise" / "Training_900.png").write_bytes(b"no image")
    refused(folder, tmp_path / "out")


def test_existing_output_is_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        imported(folder, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_hidden_files_and_macs_shadows_are_passed_over(folder: Path, tmp_path: Path) -> None:
    (folder / ".thumbnails").mkdir()
    for path in (folder / ".thumbnails" / "a.png", folder / "train" / "happy" / "._Training_1.png"):
        path.write_bytes(b"no image")
    archive = make_zip(folder, tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/train/happy/Training_1.png", b"no image")
    imported(folder, tmp_path / "one")
    imported(archive, tmp_path / "two")
    assert len(rows(tmp_path / "one")) == len(rows(tmp_path / "two")) == 40


def test_a_name_that_is_not_utf_8_does_no_harm(folder: Path, tmp_path: Path) -> None:
    image = next((folder / "train" / "happy").iterdir())
    strange = os.fsencode(image.parent) + b"/Training_\xff.png"
    Path(os.fsdecode(strange)).write_bytes(image.read_bytes())
    imported(folder, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 41


def test_the_sample_folder_can_be_imported(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample", 50, 0)
    report = imported(tmp_path / "sample", tmp_path / "out")
    assert sum(report.counts["train"].values()) == 40
    assert sum(report.counts["validation"].values()) == 10
    assert report.verdict.startswith("not FER2013")
    with pytest.raises(OutputExistsError):
        write_sample(tmp_path / "sample", 50, 0)
