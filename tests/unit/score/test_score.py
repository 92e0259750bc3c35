"""Scoring: a row for every image, bad ones included, whatever the chunks; `_SUCCESS` last."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.faces import draw_faces
from fer_ray.errors import NothingSucceededError, OutputExistsError, UnfinishedError, UserError
from fer_ray.labels import EXPRESSIONS
from fer_ray.score import job, shard
from fer_ray.score.listing import list_images, readable_path
from fer_ray.score.rows import schema
from fer_ray.score.shard import score_images, score_shard
from tests.bundles import tiny_bundle

NUM_FACES = 11


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")


def image_bytes(number: int = 0, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_faces(NUM_FACES, 9)[0][number]).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eleven faces, four bad files, one that is no image by its name, a hidden one."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for number, pixels in enumerate(draw_faces(NUM_FACES, 9)[0]):
        place = root / "sub" if number % 2 else root
        Image.fromarray(pixels).save(place / f"face{number:02d}.png")
    (root / "empty.png").write_bytes(b"")
    (root / "half.jpg").write_bytes(image_bytes(form="JPEG")[:400])
    (root / "text.jpg").write_text("These are words.")
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "notes.txt").write_text("no image by its name")
    (root / ".hidden.png").write_bytes(image_bytes())
    return root


def rows_of(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))


def scored(source: Path, out: Path, predictor: Predictor, **options: Any) -> job.ScoreReport:
    return api.score([str(source)], out, predictor, num_threads=1, **options)


# --- rows -----------------------------------------------------------------------------------------


def test_a_row_for_every_kind_of_file(folder: Path, predictor: Predictor) -> None:
    names = [
        "face00.png",
        "empty.png",
        "half.jpg",
        "text.jpg",
        "none.png",
        "face00.png/x.png",
        "sub",
    ]
    rows = score_shard([str(folder / name) for name in names], predictor, 1).to_pylist()
    assert [row["error_type"] for row in rows] == [
        None,
        "empty",
        "truncated",
        "not_an_image",
        "missing",
        "unreadable",
        "unreadable",
    ]
    assert [row["status"] for row in rows] == ["ok"] + ["error"] * 6
    good, *bad = rows
    assert (good["width"], good["height"]) == (48, 48)
    probabilities = [good[f"p_{name}"] for name in EXPRESSIONS]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert good["label"] == EXPRESSIONS[int(np.argmax(probabilities))]
    assert good["score"] == max(probabilities)
    assert good["margin"] == pytest.approx(np.subtract(*sorted(probabilities)[:-3:-1]), abs=1e-6)
    threshold = predictor.bundle.contents.calibration.threshold
    assert good["uncertain"] == (good["score"] < threshold)
    assert good["error"] is None
    for row in bad:
        assert row["error"]
        told = {"path", "face_index", "status", "error_type", "error"}
        assert all(value is None for key, value in row.items() if key not in told)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_row(folder: Path, predictor: Predictor) -> None:
    (folder / "face00.png").chmod(0)
    (row,) = score_shard([str(folder / "face00.png")], predictor, 1).to_pylist()
    assert row["error_type"] == "unreadable"


def test_a_fault_of_the_machine_is_never_a_row(
    folder: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shard.Path, "open", fail)
    with pytest.raises(UnfinishedError, match="Input/output error"):
        score_shard([str(folder / "face00.png")], predictor, 1)


def test_the_schema_is_version_1(predictor: Predictor, folder: Path) -> None:
    expected = {
        "path": "string",
        "face_index": "int32",
        "status": "string",
        "error_type": "string",
        "error": "string",
        "width": "int32",
        "height": "int32",
        "box_x": "float",
        "box_y": "float",
        "box_w": "float",
        "box_h": "float",
        "detector_score": "float",
        "label": "string",
        "score": "float",
        "margin": "float",
        "uncertain": "bool",
        **{f"p_{name}": "float" for name in EXPRESSIONS},
    }
    assert {field.name: str(field.type) for field in schema(EXPRESSIONS)} == expected
    required = {field.name for field in schema(EXPRESSIONS) if not field.nullable}
    assert required == {"path", "face_index", "status"}
    assert score_shard([str(folder / "face00.png")], predictor, 1).schema == schema(EXPRESSIONS)


@pytest.mark.parametrize("paths", [[], ["none.png"]], ids=["none", "all bad"])
def test_shards_without_an_image_keep_the_schema(predictor: Predictor, paths: list[str]) -> None:
    table = score_shard(paths, predictor, 1)
    assert table.schema == schema(EXPRESSIONS)
    assert table.num_rows == len(paths)


def test_rows_do_not_depend_on_chunks_shards_or_threads(
    folder: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(folder, tmp_path / "whole", predictor)
    monkeypatch.setattr(shard, "_CHUNK", 2)
    monkeypatch.setattr(job, "ROWS_A_SHARD", 4)
    api.score([str(folder)], tmp_path / "parts", predictor, num_threads=3)
    assert len(list((tmp_path / "parts").glob("part-*.parquet"))) == 4
    one, two = rows_of(tmp_path / "whole").to_pandas(), rows_of(tmp_path / "parts").to_pandas()
    floats = one.select_dtypes("float32").columns
    pd.testing.assert_frame_equal(one.drop(columns=floats), two.drop(columns=floats))
    assert np.nanmax(np.abs(one[floats].to_numpy(float) - two[floats].to_numpy(float))) <= 1e-6


def test_predict_gives_the_same_answers_as_score(folder: Path, predictor: Predictor) -> None:
    paths = [str(folder / name) for name in ("face00.png", "empty.png", "face02.png")]
    rows = score_shard(paths, predictor, 1).to_pylist()
    entries = score_images(paths, predictor, None)
    assert entries[1]["error"]["type"] == "empty"
    for index in (0, 2):
        assert entries[index]["predictions"][0]["label"] == rows[index]["label"]
        for answer in entries[index]["predictions"]:
            assert answer["score"] == pytest.approx(rows[index][f"p_{answer['label']}"], abs=1e-6)
        assert entries[index]["uncertain"] == rows[index]["uncertain"]
    assert len(score_images(paths[:1], predictor, 2)[0]["predictions"]) == 2


# --- the job --------------------------------------------------------------------------------------


def test_a_job_leaves_all_its_files(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"
    report = scored(folder, out, predictor, on_shard=lambda *done: told.append(done))
    assert {path.name for path in out.iterdir()} == {
        "part-00000.parquet",
        "_ledger",
        "_manifest.json",
        "_stats.json",
        "_SUCCESS",
    }
    assert told == [(15, 15)]
    errors = {"empty": 1, "truncated": 1, "not_an_image": 1, "missing": 1}
    assert (report.rows, report.errors, report.num_skipped) == (15, errors, 1)
    assert sum(report.labels.values()) == NUM_FACES
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["bundle_id"] == predictor.bundle.id
    assert manifest["images"] == 15
    stats = json.loads((out / "_stats.json").read_text())
    assert (stats["rows"], stats["errors"], stats["labels"]) == (15, errors, report.labels)
    ledger = json.loads((out / "_ledger" / "00000.json").read_text())
    assert ledger["rows"] == 15
    frame = pd.read_parquet(out / "part-00000.parquet")
    assert frame["path"].tolist() == sorted(frame["path"])
    assert frame["path"].is_unique
    assert int(frame["uncertain"].astype(float).sum()) == report.uncertain == stats["uncertain"]
    metadata = pq.read_schema(out / "part-00000.parquet").metadata
    assert metadata[b"fer_ray.bundle_id"].decode() == predictor.bundle.id
    assert metadata[b"fer_ray.precision"] == b"fp32"


def test_success_comes_last(
    folder: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "ROWS_A_SHARD", 5)
    out = tmp_path / "out"
    seen: list[set[str]] = []

    def look(done: int, _total: int) -> None:
        seen.append({path.name for path in out.iterdir()})
        assert len(list((out / "_ledger").iterdir())) == len(seen)
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(folder, out, predictor, on_shard=look)
    assert len(seen) == 3
    assert all("_manifest.json" in names for names in seen)
    assert not any("_SUCCESS" in names or "_stats.json" in names for names in seen)
    assert not (out / "_SUCCESS").exists(), "a job that was stopped is not whole"


def test_existing_output_is_refused(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    out = tmp_path / "out"
    scored(folder, out, predictor)
    before = (out / "part-00000.parquet").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        scored(folder, out, predictor)
    assert (out / "part-00000.parquet").read_bytes() == before


def test_overwrite_replaces_an_earlier_jobs_output(
    folder: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(job, "ROWS_A_SHARD", 4)
    scored(folder, out, predictor)
    monkeypatch.setattr(job, "ROWS_A_SHARD", 100)
    scored(folder, out, predictor, overwrite=True)
    assert len(list(out.glob("part-*"))) == len(list((out / "_ledger").iterdir())) == 1
    assert rows_of(out).num_rows == 15


def test_overwrite_never_deletes_what_is_not_a_jobs(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match="not a scoring job's"):
        scored(folder, out, predictor, overwrite=True)
    assert (out / "thesis.tex").read_text() == "mine"
    with pytest.raises(OutputExistsError):
        scored(folder, folder, predictor, overwrite=True)
    assert (folder / "face00.png").exists()


def test_nothing_succeeded_says_so_and_keeps_the_rows(tmp_path: Path, predictor: Predictor) -> None:
    source = tmp_path / "bad"
    source.mkdir()
    (source / "a.png").write_bytes(b"")
    (source / "b.jpg").write_text("words")
    with pytest.raises(NothingSucceededError) as caught:
        scored(source, tmp_path / "out", predictor)
    assert caught.value.exit_code == 3
    assert "none of 2 images" in caught.value.message
    found = rows_of(tmp_path / "out").to_pylist()
    assert [row["error_type"] for row in found] == ["empty", "not_an_image"]
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_strange_names_are_kept(tmp_path: Path, predictor: Predictor) -> None:
    source = tmp_path / "ünï 😀"
    source.mkdir()
    names = ["with space.png", "new\nline.png", "quote'\".png", "日本.png", "100%.PNG"]
    for name in names:
        (source / name).write_bytes(image_bytes())
    invalid = os.fsencode(source) + b"/bad\xff\xfe.png"
    Path(os.fsdecode(invalid)).write_bytes(image_bytes())
    scored(source, tmp_path / "out", predictor)
    for found in (
        rows_of(tmp_path / "out").column("path").to_pylist(),
        pd.read_parquet(tmp_path / "out" / "part-00000.parquet")["path"].tolist(),
    ):
        expected = {str(source / name) for name in names} | {str(source / r"bad\xff\xfe.png")}
        assert set(found) == expected
    assert set(rows_of(tmp_path / "out").column("status").to_pylist()) == {"ok"}


# --- listing --------------------------------------------------------------------------------------


def test_a_listing_is_sorted_absolute_and_each_file_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    listing = list_images([".", "sub", "face00.png", str(folder / "notes.txt")])
    assert list(listing.paths) == sorted(set(listing.paths))
    assert all(Path(path).is_absolute() for path in listing.paths)
    assert len(listing.paths) == 16, "a file that is named is taken whatever its name"
    assert not any(".hidden" in path for path in listing.paths)


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "circle").symlink_to(folder)
    assert len(list_images([str(folder)]).paths) == 15


def test_sources_without_an_image(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_images([str(folder), str(tmp_path / "none")])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    with pytest.raises(UserError, match=r"no image in .*\(1 other files\)"):
        list_images([str(tmp_path / "notes")])


def test_readable_paths() -> None:
    assert readable_path("/a/ü.png") == "/a/ü.png"
    assert readable_path(os.fsdecode(b"/a/\xff.png")) == r"/a/\xff.png"
