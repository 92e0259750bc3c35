"""One ONNX file that needs nothing else: read back by ONNX Runtime alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fer_ray.bundle import export
from fer_ray.bundle.export import export_onnx
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import BundleError, OutputExistsError, UserError
from tests.small import small_data
from tests.unit.bundle.networks import KINDS, bundle_of


def faces(count: int) -> np.ndarray:
    return small_data().validation.images[:count]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cnn"])
def test_onnx_runtime_answers_as_the_predictor_does(kind: str, tmp_path: Path) -> None:
    bundle = bundle_of(kind, tmp_path)
    out = tmp_path / "model.onnx"
    exported = export_onnx(bundle, out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 24, 24])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["batch", 7])
    predictor = Predictor(bundle, "fp32", "cpu")
    for count in (1, 7):
        (found,) = session.run(None, {"images": faces(count)})
        expected = predictor.predict(faces(count)).probabilities
        assert found.shape == (count, 7)
        assert np.abs(found - expected).max() <= 1e-4
        assert np.abs(found.sum(axis=1) - 1).max() <= 1e-5
    assert np.ptp(predictor.predict(faces(7)).probabilities, axis=0).max() > 0.05
    assert exported.max_difference <= 1e-4
    assert exported.bytes == out.stat().st_size


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    bundle = bundle_of("cnn", tmp_path)
    out = tmp_path / "new" / "model.onnx"
    export_onnx(bundle, out)
    graph = onnx.load(out)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import if not entry.domain] == [
        ("", export.OPSET)
    ]
    told = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(told["labels"]) == list(bundle.contents.class_names)
    assert told["bundle_id"] == bundle.id
    assert float(told["temperature"]) == bundle.contents.calibration.temperature
    assert str(tmp_path) not in str(graph), "nothing of this machine"
    assert list(out.parent.iterdir()) == [out]


def test_a_file_that_answers_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_of("cnn", tmp_path)
    other = bundle_of("flat", tmp_path)
    out = tmp_path / "out" / "model.onnx"
    monkeypatch.setattr(export, "_Deployed", lambda asked: _deployed(other))
    with pytest.raises(BundleError, match="the file is not kept"):
        export_onnx(bundle, out)
    assert list(out.parent.iterdir()) == []


_deployed = export._Deployed


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    bundle = bundle_of("cnn", tmp_path)
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(OutputExistsError):
        export_onnx(bundle, tmp_path / "there.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        export_onnx(bundle, tmp_path / "empty")
    assert (tmp_path / "there.onnx").read_text() == "mine"
