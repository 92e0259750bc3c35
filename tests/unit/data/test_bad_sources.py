"""Damaged and hostile sources: each a DataError that names file, row and rule; nothing is left."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from fer_ray.data.importing import ImportReport, import_images
from fer_ray.data.sources import bounded
from fer_ray.data.sources.detect import SourceOptions
from fer_ray.errors import DataError, UserError
from fer_ray.labels import EXPRESSIONS
from tests.unit.data.forms import csv_text, faces, gzipped, png, tar_of, write_parquet, write_tar
from tests.unit.data.kaggle import make_folder, make_zip
from tests.unit.data.test_importing import rows


def attempt(source: Path, out: Path, on_error: str = "stop", **options: object) -> ImportReport:
    return import_images(
        source,
        out,
        size_px=48,
        on_error=on_error,
        options=SourceOptions(**options),  # type: ignore[arg-type]
    )


def refused(source: Path, out: Path, on_error: str = "stop", **options: object) -> str:
    before = sorted(out.parent.iterdir())
    with pytest.raises(DataError) as caught:
        attempt(source, out, on_error, **options)
    assert sorted(out.parent.iterdir()) == before
    return str(caught.value)


# --- rows of a CSV --------------------------------------------------------------------------------


def spoiled(number: int, change: str) -> str:
    """The CSV with data row `number` changed."""
    lines = csv_text().splitlines()
    label, pixels, usage = lines[number].split(",")
    values = pixels.split(" ")
    if change == "short":
        values = values[:-4]
    elif change == "text":
        values[7] = "dark"
    elif change == "large":
        values[7] = "256"
    elif change == "huge":
        values[7] = "9" * 30
    elif change == "negative":
        values[7] = "-3"
    elif change == "empty":
        values = []
    elif change == "label":
        label = "7"
    elif change == "no label":
        label = ""
    elif change == "usage":
        usage = "Train2"
    lines[number] = f"{label},{' '.join(values)},{usage}"
    if change == "field":
        lines[number] += ",more"
    if change == "quote":
        lines[number] += '"'
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("short", "has 2,300 pixels; 48 x 48 = 2,304 must be there"),
        ("empty", "has 0 pixels; 48 x 48 = 2,304 must be there"),
        ("text", "has pixel value 'dark'; each is a whole number in 0..255"),
        ("large", "has pixel value 256; each is a whole number in 0..255"),
        ("huge", "; each is a whole number in 0..255"),
        ("negative", "has pixel value '-3'; each is a whole number in 0..255"),
        ("label", "has label number 7; known: 0 angry, 1 disgust"),
        ("no label", "has label ''; known: angry"),
        ("usage", "has Usage 'Train2'; known: Training"),
        ("field", "has 4 fields; the header names 3 (emotion, pixels, Usage)"),
        ("quote", "has a quote that does not end on its line"),
    ],
)
def test_a_bad_row_is_named_with_its_rule(tmp_path: Path, change: str, rule: str) -> None:
    source = tmp_path / "fer2013.csv"
    source.write_text(spoiled(17, change))
    text = refused(source, tmp_path / "out")
    assert "fer2013.csv row 17 " in text
    assert rule in text
    assert "--on-error skip" in text
    report = attempt(source, tmp_path / "out", "skip")
    assert [name for name, _ in report.skipped] == ["fer2013.csv row 17"]
    assert len(rows(tmp_path / "out")) == 39
    assert "1 skipped at import" in report.verdict


def test_a_csv_cut_in_a_row(tmp_path: Path) -> None:
    source = tmp_path / "fer2013.csv"
    source.write_text(csv_text()[:-2000])
    text = refused(source, tmp_path / "out")
    assert "fer2013.csv row 40 has 2 fields" in text
    assert "cut off" in text
    assert len(attempt(source, tmp_path / "out", "skip").skipped) == 1


def test_a_csv_without_rows_or_columns(tmp_path: Path) -> None:
    for text, words in (
        ("", "has no column pixels"),
        ("emotion,pixels,Usage\n", "has no train images; it has none at all"),
        ("a,b\n1,2\n", "has no column pixels"),
        ("pixels,Usage\n1,Training\n", "has no labels"),
    ):
        source = tmp_path / "some.csv"
        source.write_text(text)
        assert words in refused(source, tmp_path / "out")


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "fer2013.csv"
    source.write_text(csv_text() + "0," + "1 " * (bounded.MAX_LINE_BYTES // 2 + 600_000))
    assert "line 42 has more than 4,194,304 bytes" in refused(source, tmp_path / "out", "skip")


# --- truncated files ------------------------------------------------------------------------------


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.98])
def test_a_cut_archive_is_an_error_even_with_skip(
    tmp_path: Path, on_error: str, keep: float
) -> None:
    folder = make_folder(tmp_path / "folder")
    for source in (
        make_zip(folder, tmp_path / "a.zip"),
        write_tar(folder, tmp_path / "a.tar"),
        write_tar(folder, tmp_path / "a.tgz", "w:gz"),
        gzipped(csv_text(), tmp_path / "fer2013.csv.gz"),
        tar_of({"fer2013/fer2013.csv": csv_text().encode()}, tmp_path / "fer2013.tar.gz"),
        write_parquet(tmp_path / "hf", splits=("train",)) / "train-00000-of-00001.parquet",
    ):
        # A tar ends with up to 10 KiB of zeros, which nobody misses.
        share = min(keep, 0.85) if source.suffix == ".tar" else keep
        text = refused(cut(source, share), tmp_path / "out", on_error)
        assert source.name in text


def test_a_tar_cut_between_members_is_told(tmp_path: Path) -> None:
    source = write_tar(make_folder(tmp_path / "folder"), tmp_path / "a.tar")
    with tarfile.open(source) as archive:
        border = archive.getmembers()[20].offset
    source.write_bytes(source.read_bytes()[:border])
    assert "ends without the mark" in refused(source, tmp_path / "out", "skip")


# --- hostile archives -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../train/happy/a.png", "/train/happy/a.png", "a/../../b/a.png"])
def test_names_that_point_out_are_refused(tmp_path: Path, name: str) -> None:
    image = png(faces()[0][0])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, image)
    tar_of({name: image}, tmp_path / "a.tar", "w")
    for source in ("a.zip", "a.tar"):
        assert "points out of the archive" in refused(tmp_path / source, tmp_path / "out", "skip")


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(faces()[0][0]))
    source = write_tar(make_folder(tmp_path / "folder"), tmp_path / "a.tar")
    with tarfile.open(source, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"train/happy/Training_9{kind.decode()}.png")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        device = tarfile.TarInfo("train/happy/Training_99.png")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    report = attempt(source, tmp_path / "out")
    assert "2 link(s) in a.tar were passed over" in report.notes
    assert "1 device or sparse file(s) in a.tar were passed over" in report.notes
    assert len(rows(tmp_path / "out")) == 40
    link = zipfile.ZipInfo("train/happy/Training_9.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(link, str(secret))
    assert "is a link" in refused(tmp_path / "a.zip", tmp_path / "none")


def zeros_in_gzip(path: Path, head: bytes, num_mib: int) -> Path:
    """`head`, then so many MiB of zeros, as gzip members: small to make, large to unpack."""
    zeros = gzip.compress(bytes(1024 * 1024))
    path.write_bytes(gzip.compress(head) + zeros * num_mib)
    return path


def test_a_ten_gigabyte_bomb_is_refused_early(tmp_path: Path) -> None:
    ten_gb = 10 * 1024**3
    info = tarfile.TarInfo("train/happy/notes.txt")  # passed over, but must be unpacked for it
    info.size = ten_gb
    as_junk = zeros_in_gzip(tmp_path / "junk.tar.gz", info.tobuf(), 10 * 1024)
    assert as_junk.stat().st_size < 12_000_000
    assert "unpacks to more than 200 times" in refused(as_junk, tmp_path / "out", "skip")
    info.name = "train/happy/Training_1.png"
    as_image = zeros_in_gzip(tmp_path / "image.tgz", info.tobuf(), 100)
    assert "at most 67,108,864 are read of an image" in refused(as_image, tmp_path / "out", "skip")
    info.name, info.type = "long", tarfile.GNUTYPE_LONGNAME
    as_name = zeros_in_gzip(tmp_path / "name.tgz", info.tobuf(tarfile.GNU_FORMAT), 100)
    assert "in one piece" in refused(as_name, tmp_path / "out", "skip")
    as_csv = zeros_in_gzip(tmp_path / "fer2013.csv.gz", b"emotion,pixels,Usage\n", 100)
    assert "more than 4,194,304 bytes" in refused(as_csv, tmp_path / "out", "skip")


def test_a_zip_that_says_it_is_ten_gigabytes(tmp_path: Path) -> None:
    """The central directory tells the sizes; they are believed before a byte is unpacked."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013.csv", b"0" * 1_000_000)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (4 * 10**9).to_bytes(4, "little")
    path.write_bytes(data)
    assert "at most 200 times are read" in refused(path, tmp_path / "out", "skip")


def test_an_encrypted_member_is_told(tmp_path: Path) -> None:
    path = make_zip(make_folder(tmp_path / "folder"), tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    local = int.from_bytes(data[at + 42 : at + 46], "little")
    data[local + 6] |= 1
    path.write_bytes(data)
    assert "encrypted" in refused(path, tmp_path / "out", "skip")


# --- classes --------------------------------------------------------------------------------------


def own_classes(path: Path) -> Path:
    for number in range(30):
        folder = path / ("happy", "joyful", "contempt")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48), number).save(folder / f"{number}.png")
    return path


def test_unknown_class_folders_are_named_with_the_remedy(tmp_path: Path) -> None:
    source = own_classes(tmp_path / "folder")
    for form in (
        source,
        make_zip(source, tmp_path / "a.zip"),
        write_tar(source, tmp_path / "a.tar"),
    ):
        text = refused(form, tmp_path / "out", "skip")
        assert "20 image(s)" in text
        assert "'contempt'" in text
        assert "'joyful'" in text
        assert f"Known classes: {', '.join(EXPRESSIONS)}." in text
        assert "--classes " in text


def test_a_map_reads_folders_as_known_classes(tmp_path: Path) -> None:
    source = own_classes(tmp_path / "folder")
    report = attempt(source, tmp_path / "out", classes="joyful=happy,contempt=")
    assert sum(row["happy"] for row in report.counts.values()) == 20
    assert list(report.counts["train"]) == list(EXPRESSIONS)
    assert "10 image(s) of classes left out by --classes" in report.notes


def test_own_classes_become_the_sets_classes(tmp_path: Path) -> None:
    source = own_classes(tmp_path / "folder")
    report = attempt(source, tmp_path / "out", classes="contempt,happiness,joyful=delight")
    assert list(report.counts["train"]) == ["happy", "contempt", "delight"]
    assert {(row[2], row[3]) for row in rows(tmp_path / "out")} == {
        (0, "happy"),
        (1, "contempt"),
        (2, "delight"),
    }
    assert report.verdict.startswith("not FER2013")
    for wrong in ("", "happy", "happy,,sad", "=happy"):
        with pytest.raises(UserError, match="--classes"):
            attempt(source, tmp_path / "none", classes=wrong)


def test_folders_that_are_numbers_need_an_order(tmp_path: Path) -> None:
    for number in range(28):
        folder = tmp_path / "folder" / "train" / str(1 + number % 7)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48), number).save(folder / f"{number}.png")
    assert "--label-order" in refused(tmp_path / "folder", tmp_path / "out")
    order = "-,surprise,fear,disgust,happy,sad,angry,neutral"
    report = attempt(tmp_path / "folder", tmp_path / "out", label_order=order)
    assert report.label_order.startswith("1 surprise, 2 fear")


def test_parquet_without_its_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), path)
    assert "has no image column; it has text, label" in refused(path, tmp_path / "out")
    pq.write_table(pa.table({"image": [None, b"x"], "label": [1, 9]}), path)
    assert "train.parquet row 1 has no bytes" in refused(path, tmp_path / "out")
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [buffer.getvalue()], "label": [9]}), path)
    assert "row 1 has label number 9; known: 0 angry" in refused(path, tmp_path / "out")
