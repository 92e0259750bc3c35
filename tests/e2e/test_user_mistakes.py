"""Bad input: a clear message, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_ray.cli.main import main
from fer_ray.data.sample import write_sample
from tests.bundles import tiny_bundle

SPACE = """\
version: 1
name: small
data: {source: sample}
model: {cnn: {depth: {int: [3, 4]}}}
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process; gives exit code and what stderr says."""

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fer-ray", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return code, err

    return call


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (SPACE + "trian: {}\n", "5:1", ["unknown key 'trian'", "did you mean train?"]),
        (SPACE.replace("[3, 4]", "[3, 40]"), "4:15", ["less than or equal to 6", "40"]),
        (SPACE + "name: twice\n", "5:1", ["duplicate key 'name'", "line 2"]),
        (SPACE.replace("{cnn:", "[cnn:"), "4:36", ["not valid YAML"]),
    ],
)
def test_a_faulty_space_names_its_place(
    run: Run, tmp_path: Path, text: str, place: str, words: list[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(text)
    code, err = run("tune", space, "--out", tmp_path / "run")
    assert code == 2
    assert f"{space}:{place}:" in err
    for word in words:
        assert word in err
    assert not (tmp_path / "run").exists()


def test_an_address_where_only_a_path_can_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Path` takes a slash from it, and a folder `s3:` is what comes of that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(
        "version: 1\nname: one\ndata: {source: sample}\nmodel: {cnn: {depth: 2}}\n"
    )
    write_sample(tmp_path / "some", 70, 0)
    run("data", "import", "some", "prepared")
    there = "s3://key:secret@bucket/place"
    shipped = str(tiny_bundle(tmp_path / "tiny"))
    for words in (
        ["train", "one.yaml", "--out", there],
        ["data", "import", "some", there],
        ["data", "sample", there],
        ["evaluate", shipped, "--data", "prepared", "--html", f"{there}/page.html"],
        ["score", "some", "--runtime", "torch", "--out", there],
        ["export", shipped, "--out", f"{there}/net.onnx"],
        ["calibrate", shipped, "--data", "prepared", "--out", there],
        ["ensemble", shipped, shipped, "--out", there],
    ):
        code, err = run(*words)
        assert code == 2, (words, err)
        assert "s3://bucket/place" in err, words
        assert "is an address in object storage" in err, words
        assert "secret" not in err
        assert not (tmp_path / "s3:").exists(), words


def test_missing_files(run: Run, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for words in (
        ["check", gone],
        ["tune", gone],
        ["train", gone],
        ["data", "import", gone, tmp_path / "out"],
        ["predict", gone],
        ["score", gone, "--out", tmp_path / "out"],
        ["evaluate", gone],
    ):
        code, err = run(*words)
        assert code == 2, words
        assert str(gone) in err
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_there_say_how_to_import_and_to_try_the_sample(
    run: Run, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    code, err = run("tune", space, "--data", tmp_path / "gone", "--out", tmp_path / "run")
    assert code == 2
    assert "fer-ray data import" in err
    assert "--data sample" in err
    assert not (tmp_path / "run").exists()


def test_imports_of_what_is_no_fer2013(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("cats/1.jpg", b"x")
    (tmp_path / "empty").mkdir()
    for source, words in (
        (other, ["cats/1.jpg", "Known classes"]),
        (tmp_path / "empty", ["no image"]),
    ):
        code, err = run("data", "import", source, tmp_path / "out")
        assert code == 2
        for word in words:
            assert word in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "other.zip"]


def test_a_bundle_with_one_byte_changed_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    from fer_ray.bundle.load import find_bundle

    bundle = tmp_path / "bundle"
    shutil.copytree(find_bundle(None), bundle)
    weights = bundle / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    image = tmp_path / "x.jpg"
    image.write_bytes(b"x")
    code, err = run("predict", image, "--bundle", bundle)
    assert code == 2
    assert "model.safetensors was changed" in err


def test_existing_output_is_never_touched(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    faces = tmp_path / "faces"
    assert run("data", "sample", faces, "--count", 60)[0] == 0
    for words in (
        ["tune", space, "--out", out],
        ["data", "import", faces, out],
        ["data", "sample", out],
        ["score", faces, "--out", out],
        ["score", faces, "--out", out, "--overwrite"],
    ):
        code, err = run(*words)
        assert code == 2, words
        assert "out" in err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_train_refuses_holes_by_listing_them(run: Run, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    code, err = run("train", space, "--out", tmp_path / "run")
    assert code == 2
    assert "model.cnn.depth is a hole (3 to 4)" in err
    assert "-s model.cnn.depth=3" in err
