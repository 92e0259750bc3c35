"""Rows: schema v1, a row for every file, whatever the shards, chunks and readers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UserError
from fer_ray.labels import EXPRESSIONS
from fer_ray.models.inference import features_of
from fer_ray.score.options import RowOptions
from fer_ray.score.rows import folder_of, schema
from fer_ray.score.shard import score_images
from tests.scoring import NUM_FACES, assert_same_rows, image_bytes, rows_of, scored

PLAIN = {
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


def test_the_schema_is_version_1(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    assert {field.name: str(field.type) for field in schema(EXPRESSIONS)} == PLAIN
    required = {field.name for field in schema(EXPRESSIONS) if not field.nullable}
    assert required == {"path", "face_index", "status"}
    scored(folder, tmp_path / "out", predictor)
    written = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert written.equals(schema(EXPRESSIONS))
    assert written.metadata[b"fer_ray.bundle_id"].decode() == predictor.bundle.id
    assert written.metadata[b"fer_ray.precision"] == b"fp32"
    assert written.metadata[b"fer_ray.schema_version"] == b"1"


def test_a_row_for_every_kind_of_file(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    scored(folder, tmp_path / "out", predictor)
    rows = {Path(row["path"]).name: row for row in rows_of(tmp_path / "out").to_pylist()}
    assert len(rows) == 15
    types = {name: row["error_type"] for name, row in rows.items() if row["status"] == "error"}
    assert types == {
        "empty.png": "empty",
        "half.jpg": "truncated",
        "text.jpg": "not_an_image",
        "dangling.png": "missing",
    }
    good = rows["face00.png"]
    assert (good["width"], good["height"]) == (48, 48)
    probabilities = [good[f"p_{name}"] for name in EXPRESSIONS]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert good["label"] == EXPRESSIONS[int(np.argmax(probabilities))]
    assert good["score"] == max(probabilities)
    assert good["margin"] == pytest.approx(np.subtract(*sorted(probabilities)[:-3:-1]), abs=1e-6)
    assert good["uncertain"] == (good["score"] < predictor.bundle.contents.calibration.threshold)
    for name in types:
        assert rows[name]["error"]
        told = {"path", "face_index", "status", "error_type", "error"}
        assert all(value is None for key, value in rows[name].items() if key not in told)


def test_every_reader_reads_the_directory_as_it_is(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    report = scored(folder, out, predictor, rows_a_shard=4)
    assert report.num_files == 4
    by_pandas = pd.read_parquet(out)
    by_arrow = ds.dataset(out, format="parquet").to_table()
    by_duckdb = duckdb.sql(f"SELECT * FROM read_parquet('{out}/part-*.parquet')").arrow()
    assert len(by_pandas) == by_arrow.num_rows == 15
    assert list(by_pandas.columns) == by_arrow.column_names == list(PLAIN)
    assert sorted(by_duckdb.read_all().column("path").to_pylist()) == sorted(by_pandas["path"])
    answers = duckdb.sql(report.query).fetchall()
    assert {label: count for label, count, *_ in answers} == report.labels


@pytest.mark.parametrize("num_shards", [1, 2, 7])
@pytest.mark.parametrize("rows_a_chunk", [1, 5, 512])
def test_rows_do_not_depend_on_shards_or_chunks(
    folder: Path, tmp_path: Path, predictor: Predictor, num_shards: int, rows_a_chunk: int
) -> None:
    scored(folder, tmp_path / "whole", predictor)
    size = -(-15 // num_shards)
    scored(folder, tmp_path / "parts", predictor, rows_a_shard=size, rows_a_chunk=rows_a_chunk)
    assert len(list((tmp_path / "parts").glob("part-*"))) == -(-15 // size)
    one, two = rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts")
    assert one.column("path").to_pylist() == two.column("path").to_pylist()
    assert_same_rows(one, two)


@settings(max_examples=8)
@given(size=st.integers(1, 20), chunk=st.integers(1, 20))
def test_rows_do_not_depend_on_any_size(
    size: int, chunk: int, predictor: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "in").mkdir()
    for number in range(9):
        (root / "in" / f"{number}.png").write_bytes(image_bytes(number) if number % 4 else b"x")
    scored(root / "in", root / "one", predictor)
    scored(root / "in", root / "two", predictor, rows_a_shard=size, rows_a_chunk=chunk)
    assert_same_rows(rows_of(root / "one"), rows_of(root / "two"))


def test_predict_gives_the_same_answers_as_score(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    scored(folder, tmp_path / "out", predictor)
    rows = {row["path"]: row for row in rows_of(tmp_path / "out").to_pylist()}
    paths = [str(folder / name) for name in ("face00.png", "empty.png", "face02.png")]
    entries = score_images(paths, predictor, None)
    assert entries[1]["error"]["type"] == "empty"
    for index in (0, 2):
        row = rows[paths[index]]
        assert entries[index]["predictions"][0]["label"] == row["label"]
        for answer in entries[index]["predictions"]:
            assert answer["score"] == pytest.approx(row[f"p_{answer['label']}"], abs=1e-6)
        assert entries[index]["uncertain"] == row["uncertain"]
    assert len(score_images(paths[:1], predictor, 2)[0]["predictions"]) == 2


# --- what may be added ------------------------------------------------------------------------


def options(folder: Path, out: Path, predictor: Predictor, **asked: Any) -> list[dict[str, Any]]:
    scored(folder, out, predictor, rows=RowOptions(**asked))
    return rows_of(out).to_pylist()


def test_hash_is_that_of_the_bytes(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    for row in options(folder, tmp_path / "out", predictor, hash=True):
        path = Path(row["path"])
        expected = hashlib.sha256(path.read_bytes()).digest() if path.exists() else None
        assert row["sha256"] == expected
    written = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert str(written.field("sha256").type) == "fixed_size_binary[32]"


def test_top_k_lists_the_best_classes(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    for row in options(folder, tmp_path / "out", predictor, top_k=3):
        if row["status"] != "ok":
            assert row["top_labels"] is None
            continue
        ranked = sorted(EXPRESSIONS, key=lambda name: -row[f"p_{name}"])[:3]
        assert row["top_labels"] == ranked
        assert row["top_scores"] == [row[f"p_{name}"] for name in ranked]
        assert row["top_labels"][0] == row["label"]


def test_embeddings_are_what_the_last_layer_sees(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    rows = options(folder, tmp_path / "out", predictor, embeddings=True)
    model = predictor.bundle.model
    head = [m for m in model.get_submodule("head").modules() if isinstance(m, torch.nn.Linear)][-1]
    temperature = predictor.bundle.contents.calibration.temperature
    for row in rows:
        if row["status"] != "ok":
            assert row["embedding"] is None
            continue
        logits = head(torch.tensor(row["embedding"])).detach() / temperature
        expected = [row[f"p_{name}"] for name in EXPRESSIONS]
        assert logits.softmax(0).tolist() == pytest.approx(expected, abs=1e-4)
    written = pq.read_schema(tmp_path / "out" / "part-00000.parquet").field("embedding").type
    assert str(written).startswith("fixed_size_list")
    alone = features_of(model, predictor.preprocess, np.zeros((0, 24, 24), np.uint8))
    assert alone.shape == (0, head.in_features)


def test_hash_paths_leaves_no_name(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    out = tmp_path / "out"
    rows = options(folder, out, predictor, hash_paths=True)
    expected = {
        hashlib.sha256(str(folder / name).encode()).hexdigest()
        for name in ("face00.png", "empty.png", "sub/face01.png")
    }
    assert expected < {row["path"] for row in rows}
    for path in out.rglob("*"):
        if path.is_file():
            assert b"face0" not in path.read_bytes(), path
            assert str(folder).encode() not in path.read_bytes(), path


def test_labels_from_folders_give_accuracy(tmp_path: Path, predictor: Predictor) -> None:
    root = tmp_path / "images"
    for number in range(NUM_FACES):
        place = root / (EXPRESSIONS[number % 7].upper() if number else "unknown")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(image_bytes(number))
    (root / "ANGRY" / "bad.png").write_bytes(b"no image")
    report = scored(root, tmp_path / "out", predictor, rows=RowOptions(labels_from_folders=True))
    rows = rows_of(tmp_path / "out").to_pandas()
    known = rows[rows["true_label"].notna() & (rows["status"] == "ok")]
    assert len(known) == 10
    assert rows.loc[rows["path"].str.contains("unknown"), "true_label"].isna().all()
    agreement = report.agreement
    assert agreement is not None
    assert agreement.count == 10
    assert agreement.accuracy == pytest.approx((known["true_label"] == known["label"]).mean())
    counts = known["true_label"].value_counts()
    assert agreement.majority_accuracy == pytest.approx(counts.max() / 10)
    for true, row in zip(agreement.class_names, agreement.confusion, strict=True):
        for answer, count in zip(agreement.class_names, row, strict=True):
            both = (known["true_label"] == true) & (known["label"] == answer)
            assert count == both.sum()


def test_folder_names() -> None:
    assert folder_of("/a/Happy/x.png") == "happy"
    assert folder_of("s3://bucket/sad/x.png") == "sad"
    assert folder_of("/x.png") == ""


def test_a_kept_column_never_hides_one_of_ours() -> None:
    import pyarrow as pa

    with pytest.raises(UserError, match="label cannot be kept"):
        schema(EXPRESSIONS, RowOptions(), pa.schema([("label", pa.string())]))


@pytest.mark.parametrize("bad", [{"top_k": 0}, {"face_margin_frac": -1.0}, {"max_pixels": 0}])
def test_options_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        RowOptions(**bad)


def test_max_pixels_refuses_larger_images(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    Image.new("L", (8, 8), 90).save(folder / "small.png")
    rows = options(folder, tmp_path / "out", predictor, max_pixels=48 * 48 - 1)
    found = {row["error_type"] for row in rows if "face" in Path(row["path"]).name}
    assert found == {"too_large"}
    assert [row["status"] for row in rows if "small" in row["path"]] == ["ok"]
