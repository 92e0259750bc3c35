"""Scoring on Ray Data: the rows of this process, faults and resuming included."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UnfinishedError
from fer_ray.score import ray_data
from fer_ray.score.options import RowOptions
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
    # A transient fault in a worker: the address answers nobody.
    (tmp_path / "names.txt").write_text(f"{source}/001.jpg\nhttp://127.0.0.1:9/x.png\n")
    monkeypatch.setattr(ray_data, "FILL_S", 1.0)
    rows = RowOptions(hash=True, embeddings=True)
    scored(source, tmp_path / "local", predictor, rows=rows)
    scored(source, tmp_path / "ray", predictor, rows=rows, engine="ray", rows_a_shard=90)
    assert len(list((tmp_path / "ray").glob("part-*"))) == 3
    assert_same_rows(rows_of(tmp_path / "local"), rows_of(tmp_path / "ray"))
    assert (tmp_path / "ray" / "_SUCCESS").exists()
    monkeypatch.setattr("fer_ray.score.job.time.sleep", lambda _s: None)
    with pytest.raises(UnfinishedError, match="reading http"):
        scored(tmp_path / "names.txt", tmp_path / "stop", predictor, engine="ray", rows_a_shard=1)
    assert len(list((tmp_path / "stop").glob("part-*"))) == 1
    assert rows_of(tmp_path / "stop").column("status").to_pylist() == ["ok"]
