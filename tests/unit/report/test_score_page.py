"""The page of a scoring job: figures, escaped names, pictures only on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UserError
from fer_ray.score.options import RowOptions
from fer_ray.score.summary import drift_of
from tests.bundles import tiny_bundle
from tests.scoring import image_bytes, rows_of, scored

EVIL = "<script>alert(1)<b>&.jpg"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "in" / "happy"
    root.mkdir(parents=True)
    for number in range(9):
        (root / f"{number}.png").write_bytes(image_bytes(number))
    (root / EVIL).write_bytes(b"no image")
    return root.parent


def test_the_page_tells_the_job(source: Path, tmp_path: Path, predictor: Predictor) -> None:
    out = tmp_path / "out"
    rows = RowOptions(labels_from_folders=True)
    report = scored(source, out, predictor, rows=rows, report=True)
    page = (out / "_report.html").read_text(encoding="utf-8")
    assert "9 answers in 10 rows" in page
    for name, count in report.labels.items():
        assert f"{name}: {count:,} of 9 images" in page
    assert report.drift is not None
    assert f"{report.drift.distance:.3f}" in page
    assert report.agreement is not None
    assert f"Accuracy {100 * report.agreement.accuracy:.1f} %" in page
    assert "not_an_image" in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;b&gt;&amp;.jpg" in page
    assert "default-src 'none'" in page
    assert "data:image" not in page
    assert "http://" not in page
    assert rows_of(out).num_rows == 10, "the page is nothing that a reader reads"


def test_pictures_come_only_on_request(source: Path, tmp_path: Path, predictor: Predictor) -> None:
    out = tmp_path / "out"
    scored(source, out, predictor, report=True, with_images=True)
    assert (out / "_report.html").read_text(encoding="utf-8").count("data:image/png") == 9
    with pytest.raises(UserError, match="--with-images shows local files"):
        api.score(
            [str(source)],
            tmp_path / "hashed",
            predictor,
            rows=RowOptions(hash_paths=True),
            report=True,
            with_images=True,
        )


def test_drift_is_the_total_variation_distance() -> None:
    names = ("a", "b")
    metrics = {"validation": {"confusion": [[3, 1], [0, 4]]}}  # answers: 3 a, 5 b
    same = drift_of({"a": 30, "b": 50}, names, metrics)
    assert same is not None
    assert (same.distance, same.word) == (0.0, "as on validation")
    far = drift_of({"a": 8}, names, metrics)
    assert far is not None
    assert far.distance == pytest.approx(5 / 8)
    assert far.word == "very different"
    assert drift_of({}, names, metrics) is None
    assert drift_of({"a": 1}, names, {}) is None
