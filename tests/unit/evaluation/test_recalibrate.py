"""Calibrating makes another bundle, leaves the first alone, and says what it gained."""

from pathlib import Path

import numpy as np
import pytest

from fer_ray import api
from fer_ray.bundle import manifest
from fer_ray.bundle.load import Bundle, load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.prepared import TEST_OPENINGS, open_prepared, read_split
from fer_ray.errors import DataError, OutputExistsError, UserError
from fer_ray.evaluation.calibrate import NO_RULE, fit_calibration
from fer_ray.metrics import wilson_interval
from fer_ray.report.evaluation_text import calibration_lines, evaluation_lines


@pytest.fixture
def bundle(bundles: tuple[Path, Path]) -> Bundle:
    return load_bundle(bundles[0])


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_another_bundle_of_the_same_network(bundle: Bundle, many: Path, tmp_path: Path) -> None:
    before = files(bundle.path)
    report = api.calibrate(bundle, many, tmp_path / "new", target_precision=0.01)
    assert files(bundle.path) == before
    made = load_bundle(tmp_path / "new")
    assert made.id != bundle.id
    assert made.id == report.document["new_bundle"]["id"]
    now = files(made.path)
    for name in (manifest.WEIGHTS, manifest.CONFIG, manifest.PREPROCESSOR, manifest.GOLDEN):
        assert now[name] == before[name], name
    lineage = made.contents.lineage
    assert lineage["parent"] == {"bundle_id": bundle.id, "name": "tiny"}
    assert lineage["calibrated_on"]["fingerprint"] == open_prepared(many).fingerprint
    split = read_split(open_prepared(many), "validation")
    logits = Predictor(bundle, "fp32", "cpu").logits(split.images)
    assert made.contents.calibration == fit_calibration(logits, split.labels, 0.01)
    # The network is tested on data that are not its own: its card's figures stay the parent's.
    assert made.contents.metrics["validation"] == bundle.contents.metrics["validation"]
    assert bundle.id[:12] in now[manifest.CARD].decode()
    assert not (many / TEST_OPENINGS).exists()


def test_the_figures_are_those_of_both_bundles(bundle: Bundle, many: Path, tmp_path: Path) -> None:
    report = api.calibrate(bundle, many, tmp_path / "new", target_precision=0.01)
    document = report.document
    for side, place in (("before", bundle.path), ("after", tmp_path / "new")):
        predictor = Predictor(load_bundle(place), "fp32", "cpu")
        expected = api.evaluate(predictor, many, views="single").document
        found = document[side]
        assert found["temperature"] == expected["temperature"]
        assert found["ece"] == pytest.approx(expected["ece"], abs=1e-9)
        assert found["log_loss"] == pytest.approx(expected["log_loss"], abs=1e-9)
        for key in ("kept", "uncertain_share", "precision", "threshold"):
            rule = found["abstain"] or {"threshold": NO_RULE, "kept": 0, "uncertain_share": 1.0}
            assert rule.get(key) == pytest.approx(expected["abstention"][key])
    assert document["after"]["log_loss"] <= document["before"]["log_loss"]
    rule = document["after"]["abstain"]
    right = round(rule["precision"] * rule["kept"])
    assert wilson_interval(right, rule["kept"], 1.645)[0] >= 0.01
    assert 0 < document["held_out"]["ece"] < 0.5
    assert document["held_out"]["kept"]["count"] == 700
    assert np.isclose(document["held_out"]["kept"]["precision"], rule["precision"], atol=0.1)
    text = "\n".join(calibration_lines(document))
    for word in ("temperature", "15 equal bins", "uncertain", "held out"):
        assert word in text


def test_a_target_out_of_reach_is_said(bundle: Bundle, many: Path, tmp_path: Path) -> None:
    report = api.calibrate(bundle, many, tmp_path / "new", target_precision=0.999)
    assert report.document["after"]["abstain"] is None
    assert "no threshold reaches a precision of 99.9 %" in "\n".join(
        calibration_lines(report.document)
    )
    predictor = Predictor(load_bundle(tmp_path / "new"), "fp32", "cpu")
    evaluation = api.evaluate(predictor, many, views="single")
    assert evaluation.document["abstention"]["uncertain_share"] == 1
    assert "no threshold reaches" in "\n".join(evaluation_lines(evaluation))


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, 90.0, float("nan")])
def test_targets_that_are_no_share(
    bundle: Bundle, many: Path, tmp_path: Path, target: float
) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        api.calibrate(bundle, many, tmp_path / "new", target_precision=target)
    assert not (tmp_path / "new").exists()


def test_a_bundle_is_never_changed(bundle: Bundle, many: Path, tmp_path: Path) -> None:
    before = files(bundle.path)
    for out, error in (
        (bundle.path, UserError),
        (bundle.path / "new", UserError),
        (many, OutputExistsError),
    ):
        with pytest.raises(error):
            api.calibrate(bundle, many, out)
    with pytest.raises(DataError):
        api.calibrate(bundle, tmp_path / "gone", tmp_path / "new")
    assert files(bundle.path) == before
