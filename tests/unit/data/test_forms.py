"""Every form of the same images gives the same rows; label and column orders do not matter."""

import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fer_ray.cli.data import app
from fer_ray.data.importing import ImportReport, import_images
from fer_ray.data.prepared import open_prepared
from fer_ray.data.sources.detect import SourceOptions
from fer_ray.errors import DataError, UserError
from fer_ray.labels import EXPRESSIONS
from tests.unit.data.forms import (
    ALPHABETICAL,
    csv_text,
    faces,
    gzipped,
    tar_of,
    text_of,
    votes_text,
    write_parquet,
    write_tar,
)
from tests.unit.data.kaggle import make_folder, make_zip
from tests.unit.data.test_importing import rows

ICML = ("emotion", " Usage", " pixels")


def imported(source: Path | str, out: Path, **options: object) -> ImportReport:
    return import_images(
        source,
        out,
        size_px=48,
        on_error="stop",
        splits=str(options.pop("splits", "auto")),
        options=SourceOptions(**options),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[object, ...]]]:
    """Fingerprint and rows of the image folder."""
    path = tmp_path_factory.mktemp("expected")
    report = imported(make_folder(path / "folder"), path / "out")
    return report.fingerprint, rows(path / "out")


def sources(path: Path) -> dict[str, Path]:
    folder = make_folder(path / "folder")
    plain, icml = path / "fer2013.csv", path / "icml_face_data.csv"
    plain.write_text(csv_text())
    icml.write_text(csv_text(ICML))
    in_zip = path / "competition.zip"
    with zipfile.ZipFile(in_zip, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013/README", "a text")
        archive.write(plain, "fer2013/fer2013.csv")
        archive.writestr("test.csv", "pixels\n1 2\n")
    windows = path / "windows.csv"
    windows.write_bytes(b"\xef\xbb\xbf" + csv_text(end="\r\n").encode())
    quoted = path / "quoted.csv"
    quoted.write_text(
        csv_text()
        .replace("\n", '"\n')
        .replace(",Training", ',"Training')
        .replace(",PublicTest", ',"PublicTest')
        .replace(",PrivateTest", ',"PrivateTest')
        .replace('Usage"', "Usage")
    )
    readme = b"FER2013"
    return {
        "zip": make_zip(folder, path / "images.zip"),
        "tar": write_tar(folder, path / "images.tar"),
        "tgz": write_tar(folder, path / "images.tgz", "w:gz", seed=3),
        "csv": plain,
        "icml": icml,
        "windows": windows,
        "quoted": quoted,
        "csv.gz": gzipped(csv_text(), path / "fer2013.csv.gz"),
        "csv in zip": in_zip,
        "csv in tar": tar_of(
            {"fer2013/README": readme, "fer2013/fer2013.csv": csv_text().encode()},
            path / "fer2013.tar.gz",
        ),
        "parquet": write_parquet(path / "hf"),
        "parquet with names": write_parquet(path / "hf2", order=EXPRESSIONS, metadata=True),
        "parquet with img_bytes": write_parquet(path / "hf3", plain=True),
        "parquet with strings": write_parquet(path / "hf4", names=True),
    }


def test_every_form_gives_the_same_rows(
    tmp_path: Path, expected: tuple[str, list[tuple[object, ...]]]
) -> None:
    for number, (name, source) in enumerate(sources(tmp_path).items()):
        report = imported(source, tmp_path / f"out{number}")
        assert report.fingerprint == expected[0], name
        assert rows(tmp_path / f"out{number}") == expected[1], name
        assert report.splits == "the source's own", name


def test_the_label_order_is_told_with_its_reason(tmp_path: Path) -> None:
    forms = sources(tmp_path)
    official = "0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral"
    by_name = "0 angry, 1 disgust, 2 fear, 3 happy, 4 neutral, 5 sad, 6 surprise"
    for form, decision in {
        "csv": f"{official}: FER2013's CSV forms count in the published order",
        "parquet": f"{by_name}: Parquet without names counts them sorted",
        "parquet with names": f"{official}: the file's own metadata names them",
        "zip": "by name: the source carries class names",
        "parquet with strings": "by name: the source carries class names",
    }.items():
        report = imported(forms[form], tmp_path / "out" / form)
        assert report.label_order.startswith(decision), form
        info = open_prepared(tmp_path / "out" / form).info
        assert (info["label_order"], info["form"]) == (report.label_order, report.form)


def test_the_command_line_prints_what_it_decided(tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    source.write_text(csv_text(("emotion", "pixels")).replace(" 1", " x", 1))
    order = ",".join(EXPRESSIONS)
    arguments = [str(source), str(tmp_path / "out"), "--on-error", "skip", "--label-order", order]
    found = CliRunner().invoke(app, ["import", *arguments])
    assert found.exit_code == 0, found.output
    for line in (
        "form: CSV: train.csv (emotion,pixels; no Usage, as the competition's train.csv)",
        "labels: 0 angry, 1 disgust",
        "splits: made: validation out of train (train 90 %, validation 10 %)",
        "skipped: 1, such as train.csv row 1: has pixel value 'x",
        "verdict: not FER2013 as published",
    ):
        assert line in found.output


@settings(max_examples=10, deadline=None)
@given(
    columns=st.permutations(["emotion", "pixels", "Usage"]),
    blanks=st.lists(st.sampled_from(["", " ", "  "]), min_size=3, max_size=3),
    order=st.permutations(EXPRESSIONS),
)
def test_any_column_order_and_any_label_order(
    expected: tuple[str, list[tuple[object, ...]]],
    columns: list[str],
    blanks: list[str],
    order: list[str],
) -> None:
    names = [blank + column for blank, column in zip(blanks, columns, strict=True)]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "some.csv"
        source.write_text(csv_text(names, order))
        report = imported(source, Path(directory) / "out", label_order=",".join(order))
        assert report.fingerprint == expected[0]
        assert "asked for with --label-order" in report.label_order


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(EXPRESSIONS))
def test_any_label_order_in_parquet(
    expected: tuple[str, list[tuple[object, ...]]], order: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        named = write_parquet(place / "named", order=order, metadata=True)
        assert imported(named, place / "a").fingerprint == expected[0]
        bare = write_parquet(place / "bare", order=order)
        report = imported(bare, place / "b", label_order=",".join(order))
        assert report.fingerprint == expected[0]


def test_named_orders(tmp_path: Path, expected: tuple[str, list[tuple[object, ...]]]) -> None:
    source = tmp_path / "sorted.csv"
    source.write_text(csv_text(order=ALPHABETICAL))
    assert imported(source, tmp_path / "a").fingerprint != expected[0]
    report = imported(source, tmp_path / "b", label_order="alphabetical")
    assert report.fingerprint == expected[0]
    assert "auto would have taken 0 angry" in report.label_order
    for wrong in ("alphabetic", "angry,joyful", ""):
        with pytest.raises(UserError, match="--label-order is auto"):
            imported(source, tmp_path / "c", label_order=wrong)


def test_numbers_that_start_at_one(tmp_path: Path) -> None:
    source = tmp_path / "raf.csv"
    source.write_text("label,pixels,Usage\n1,0,Training\n2,1,PublicTest\n")
    report = imported(source, tmp_path / "out", label_order="-,surprise,fear")
    assert report.counts["train"]["surprise"] == report.counts["validation"]["fear"] == 1


def test_the_best_csv_of_a_folder_is_taken_and_the_others_are_told(
    tmp_path: Path, expected: tuple[str, list[tuple[object, ...]]]
) -> None:
    folder = tmp_path / "competition"
    folder.mkdir()
    (folder / "icml_face_data.csv").write_text(csv_text(ICML))
    (folder / "train.csv").write_text(csv_text(("emotion", "pixels")))
    (folder / "test.csv").write_text(csv_text(("pixels",)))
    (folder / "example_submission.csv").write_text("emotion\n0\n")
    report = imported(folder, tmp_path / "out")
    assert report.fingerprint == expected[0]
    assert "test.csv has no labels: ignored" in report.notes
    assert "example_submission.csv has no column pixels: ignored" in report.notes
    assert "train.csv is not read: icml_face_data.csv is taken: ignored" in report.notes
    with pytest.raises(DataError, match=r"test\.csv has no labels, so there is nothing to train"):
        imported(folder / "test.csv", tmp_path / "none")


def test_pixels_of_another_side_are_resized_by_the_decoder(tmp_path: Path) -> None:
    source = tmp_path / "small.csv"
    lines = ["emotion,pixels,Usage"]
    for number, (pixels, label, usage) in enumerate(faces()):
        del number
        text = text_of(pixels[:20, :20])
        lines.append(f"{EXPRESSIONS.index(label)},{text},{usage}")
    source.write_text("\n".join(lines) + "\n")
    imported(source, tmp_path / "out")
    assert {len(row[1]) for row in rows(tmp_path / "out")} == {48 * 48}  # type: ignore[arg-type]


def test_object_storage_is_read_through_a_copy(
    tmp_path: Path, expected: tuple[str, list[tuple[object, ...]]]
) -> None:
    """pyarrow's own file:// stands in for s3:// and gs://: the code is the same."""
    folder = make_folder(tmp_path / "folder")
    archive = make_zip(folder, tmp_path / "images.zip")
    for number, place in enumerate((folder, archive)):
        assert imported(place.as_uri(), tmp_path / f"out{number}").fingerprint == expected[0]
    with pytest.raises(DataError, match="does not exist"):
        imported((tmp_path / "none.zip").as_uri(), tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read"):
        imported("nowhere://bucket/fer2013.csv", tmp_path / "out")


def test_a_prepared_set_is_no_source(tmp_path: Path) -> None:
    imported(make_folder(tmp_path / "folder"), tmp_path / "out")
    with pytest.raises(DataError, match="is a prepared data set already"):
        imported(tmp_path / "out", tmp_path / "again")


# --- votes ----------------------------------------------------------------------------------------


def with_votes(tmp_path: Path, votes: str, source: str | None = None) -> ImportReport:
    (tmp_path / "fer2013.csv").write_text(source or csv_text())
    (tmp_path / "fer2013new.csv").write_text(votes)
    return imported(tmp_path / "fer2013.csv", tmp_path / "out", votes=tmp_path / "fer2013new.csv")


def test_votes_are_joined_by_row_in_canonical_order(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    report = with_votes(tmp_path, votes_text(nameless=[0, 5]))
    assert "2 row(s) without an image name left out, as FER+ does" in report.notes
    seen = 0
    for path in (tmp_path / "out").glob("part-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            votes = [0] * 7
            votes[row["label"]] = 8
            votes[EXPRESSIONS.index("neutral")] += 1
            assert row["votes"] == votes
            seen += 1
    assert seen == 38
    assert open_prepared(tmp_path / "out").info["votes"] is True


def test_votes_that_do_not_fit(tmp_path: Path) -> None:
    votes = votes_text()
    short, swapped = votes.splitlines(), votes.splitlines()
    swapped[1], swapped[2] = swapped[2], swapped[1]
    source = csv_text().splitlines()
    for text, rows_, words in (
        ("\n".join(short[:-1]), None, "goes on at row 40, where the votes end"),
        (votes, "\n".join(source[:-1]) + "\n", "ends after row 39, but the votes go on"),
        ("\n".join(swapped), None, "row 1 is train, but its votes are validation"),
        (votes.replace(",8,", ",x,", 1), None, "each is a number in 0..255"),
        ("a,b\n", None, r"is no FER\+ file"),
    ):
        with pytest.raises(DataError, match=words):
            with_votes(tmp_path, text, rows_)
    with pytest.raises(UserError, match="--votes joins FER"):
        imported(
            make_folder(tmp_path / "folder"),
            tmp_path / "out",
            votes=tmp_path / "fer2013new.csv",
        )
