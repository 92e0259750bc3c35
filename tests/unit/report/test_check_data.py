"""`fer-ray data check` by its typed function and by its command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fer_ray import api
from fer_ray.cli.main import app
from fer_ray.data.checking import check_prepared
from fer_ray.data.prepared import TEST_OPENINGS, open_prepared
from fer_ray.errors import ConfigError, OutputExistsError, UserError
from fer_ray.report.data_text import check_lines
from tests.unit.data.prepared_sets import three_splits, with_faults, write_prepared

SPACE = """version: 1
name: preview
model: {cnn: {}}
data: {equalize: {choice: [none, clahe]}}
augment: {rotate_deg: {float: [0, 20]}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_prepared(tmp_path / "set", with_faults()).path


def test_page_preview_and_cleaned_set(tmp_path: Path, path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    checked = api.check_data(
        path,
        html=tmp_path / "page.html",
        with_images=True,
        config=tmp_path / "space.yaml",
        drop_leaks=True,
        drop_duplicates=True,
        out=tmp_path / "clean",
    )
    assert "Augmentation of preview" in (tmp_path / "page.html").read_text()
    assert checked.cleaned is not None
    assert open_prepared(tmp_path / "clean").fingerprint == checked.cleaned.fingerprint
    assert json.loads(json.dumps(checked.as_dict()))["cleaned"]["num_leaks"] == 4


@pytest.mark.parametrize(
    "options",
    [
        {"out": "clean"},
        {"drop_leaks": True},
        {"drop_duplicates": True},
        {"config": "a"},
        {"with_images": True},
        {"html": "page.html", "config": "a"},
    ],
)
def test_options_that_do_not_go_together(path: Path, options: dict[str, object]) -> None:
    with pytest.raises(UserError):
        api.check_data(path, **options)  # type: ignore[arg-type]
    assert not (path / TEST_OPENINGS).exists(), "refused before anything is opened"


def test_what_is_in_the_way_is_refused_before_the_test_split_is_opened(
    tmp_path: Path, path: Path
) -> None:
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "bad.yaml").write_text("version: 1\nname: x\nmodels: {}\n")
    with pytest.raises(OutputExistsError):
        api.check_data(path, html=tmp_path / "mine.html")
    with pytest.raises(OutputExistsError):
        api.check_data(path, drop_leaks=True, out=path)
    bad = tmp_path / "bad.yaml"
    with pytest.raises(ConfigError):
        api.check_data(path, html=tmp_path / "page.html", with_images=True, config=bad)
    assert not (path / TEST_OPENINGS).exists()
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_the_text_names_every_figure(path: Path) -> None:
    lines = list(check_lines(check_prepared(open_prepared(path))))
    assert lines[0].split()[-1] == "total"
    assert "duplicates: 8 surplus" in lines[5]
    assert "leaks: 2 of 14 validation images are identical to one of train; clean size 12" in lines
    assert (
        "leaks: 1 of 14 test images are identical to one of train, 3 to one of validation; "
        "clean size 11"
    ) in lines
    assert "test split: opened 1 times, this check included (labels and hashes, no image)" in lines
    assert lines[-1].startswith("verdict: not FER2013")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = three_splits()
    del splits["test"]
    path = write_prepared(tmp_path / "set", splits).path
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["data", "check", str(path)])
    assert result.exit_code == 0, result.output
    assert "test split: none" in result.stdout
    assert (tmp_path / "check.html").read_text().startswith("<!doctype html>")
    options = ["--json", "--html", "b.html", "--drop-leaks", "--out", "clean"]
    result = CliRunner().invoke(app, ["data", "check", str(path), *options])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["cleaned"]["path"] == "clean"
    assert document["verdict"]["kind"] == "other"
    assert (tmp_path / "b.html").is_file()
