"""Scoring on Ray Data: the rows of this process, faults and resuming included."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import ray

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.score import ray_data
from fer_ray.score.classify import Classifier
from fer_ray.score.items import Item, write_items
from fer_ray.score.local import Assembly, Finished, Unfinished
from fer_ray.score.options import RowOptions
from fer_ray.score.output import Output
from fer_ray.score.parts import PartWriter
from fer_ray.score.prepare import Recipe
from tests.bundles import tiny_bundle
from tests.scoring import assert_same_rows, image_bytes, rows_of, scored

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")


def test_the_rows_of_ray_are_those_of_this_process(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(190):
        data = image_bytes(number, "JPEG" if number % 3 else "PNG") if number % 17 else b"x"
        (source / f"{number:03d}.jpg").write_bytes(data)
    monkeypatch.setattr(ray_data, "FILL_S", 1.0)
    rows = RowOptions(hash=True, embeddings=True)
    scored(source, tmp_path / "local", predictor, rows=rows)
    scored(source, tmp_path / "ray", predictor, rows=rows, engine="ray", rows_a_shard=90)
    assert len(list((tmp_path / "ray").glob("part-*"))) == 3
    assert_same_rows(rows_of(tmp_path / "local"), rows_of(tmp_path / "ray"))
    assert (tmp_path / "ray" / "_SUCCESS").exists()


def test_a_chunk_that_cannot_be_read_says_so_and_its_shard_is_dropped(
    tmp_path: Path, predictor: Predictor
) -> None:
    """The stages as they are, called here: what a worker meets travels with its chunk."""
    output = Output(tmp_path / "out")
    (tmp_path / "a.png").write_bytes(image_bytes())
    for shard, path in enumerate(("http://127.0.0.1:9/x.png", f"{tmp_path}/a.png")):
        write_items(output.inputs(shard), [Item(path)], pa.schema([]), {})
    recipe = Recipe(24, predictor.class_names, RowOptions(), {}, 0.1, 1, 4)
    kept = pa.schema([]).serialize().to_pybytes()
    stage = ray_data.PrepareChunk(str(output.root), recipe, kept)
    classifier = Classifier(predictor, RowOptions(), pa.schema([]))
    files = ray.put(ray_data.bundle_files(predictor.bundle.path))
    actor = ray_data.ClassifyChunk(files, "torch", "fp32", "single", RowOptions(), kept)
    assembly = Assembly(
        output, lambda n: PartWriter(output.part(n), classifier.schema, {}, predictor.class_names)
    )
    chunk = {"chunk": 0, "num_chunks": 1, "start": 0}
    rows = [actor(stage({"shard": shard, **chunk})) for shard in (0, 1)]
    assert "kept failing" in rows[0]["unfinished"]
    outcomes = [ray_data._take(row, assembly, lambda _rows: None) for row in rows]
    assert [type(outcome) for outcome in outcomes] == [Unfinished, Finished]
    assert output.finished() == [1]
    assert not output.part(0).exists()
