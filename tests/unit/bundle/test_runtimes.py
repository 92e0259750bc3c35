"""The runtimes answer alike, and `auto` takes the fastest of those that do."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fer_ray.bundle.load import Bundle, load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.bundle.runtimes import choice
from fer_ray.bundle.runtimes.engine import CropsToLogits
from fer_ray.bundle.runtimes.openvino_engine import OpenVinoEngine
from fer_ray.errors import UserError
from tests.small import small_data
from tests.unit.bundle.networks import bundle_of

OTHERS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def bundle(original: Path) -> Bundle:
    return load_bundle(original)


def faces() -> np.ndarray:
    return small_data().validation.images


@pytest.fixture(scope="module")
def exact(bundle: Bundle) -> dict[str, Predictor]:
    """One Predictor a runtime, in fp32."""
    return {
        name: Predictor(bundle, "fp32", "cpu", runtime=name)
        for name in ("torch", "openvino", "onnxruntime")
    }


def spread(probabilities: np.ndarray) -> float:
    """How far the answers for different images lie apart."""
    return float(np.ptp(probabilities, axis=0).max())


@pytest.mark.parametrize("runtime", OTHERS)
def test_fp32_is_the_same_in_every_runtime(exact: dict[str, Predictor], runtime: str) -> None:
    assert (exact[runtime].runtime, exact[runtime].precision) == (runtime, "fp32")
    expected = exact["torch"].predict(faces()).probabilities
    assert spread(expected) > 0.05
    found = exact[runtime].predict(faces()).probabilities
    assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(exact[runtime].predict(faces()[3:4]).probabilities - found[3:4]).max() <= 1e-5


@pytest.mark.parametrize("kind", ["resnet", "clahe"])
def test_openvino_takes_other_networks_too(kind: str, tmp_path: Path) -> None:
    made = bundle_of(kind, tmp_path)
    expected = Predictor(made, "fp32", "cpu").predict(faces()).probabilities
    assert spread(expected) > 0.05
    found = Predictor(made, "fp32", "cpu", runtime="openvino").predict(faces()).probabilities
    assert np.abs(found - expected).max() <= 1e-5


def test_openvino_in_bf16_rounds_a_little(bundle: Bundle, exact: dict[str, Predictor]) -> None:
    expected = exact["torch"].predict(faces()).probabilities
    try:
        rounded = Predictor(bundle, "bf16", "cpu", runtime="openvino")
    except UserError as error:
        pytest.skip(error.message)
    difference = np.abs(rounded.predict(faces()).probabilities - expected).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize("runtime", ["torch", *OTHERS])
def test_threads_do_not_meet(exact: dict[str, Predictor], runtime: str) -> None:
    predictor = exact[runtime]
    expected = predictor.logits(faces())
    rows = [slice(i, i + 1 + i % 5) for i in range(24)] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: predictor.logits(faces()[part]), rows))
    for part, logits in zip(rows, found, strict=True):
        assert np.abs(logits - expected[part]).max() <= 1e-5


# --- auto -----------------------------------------------------------------------------------------


def test_auto_compares_all_and_takes_the_fastest(bundle: Bundle) -> None:
    predictor = Predictor(bundle, "auto", "cpu", num_threads=1)
    told = predictor.inference
    assert {rates["runtime"] for rates in told["measured"]} == {"torch", *OTHERS}
    rates = [r["images_per_s_alone"] * r["images_per_s_batched"] for r in told["measured"]]
    assert rates == sorted(rates, reverse=True)
    assert min(rates) > 0
    assert told["measured"][0]["runtime"] == told["runtime"] == predictor.runtime
    assert told["reason"].startswith("measured: ")
    assert told["versions"]["torch"] == torch.__version__
    assert told["num_threads"] == 1
    assert predictor.runtime in predictor.title


def test_fp32_means_torch_unless_a_runtime_is_named(bundle: Bundle) -> None:
    predictor = Predictor(bundle, "fp32", "cpu")
    assert (predictor.runtime, predictor.inference["measured"]) == ("torch", [])
    assert "the same answers everywhere" in predictor.inference["reason"]


class _MustNotBeBuilt:
    def __init__(self, *arguments: object) -> None:
        raise AssertionError("built")


def test_little_work_is_not_worth_a_conversion(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OpenVinoEngine", "OnnxEngine"):
        monkeypatch.setattr(choice, name, _MustNotBeBuilt)
    predictor = Predictor(bundle, "auto", "cpu", expected_images=20)
    assert predictor.runtime == "torch"
    assert "would cost more than it gains" in predictor.inference["reason"]
    with_much = Predictor(bundle, "auto", "cpu", expected_images=10**9)
    assert set(with_much.inference["skipped"]) == set(OTHERS)


class _Wrong(OpenVinoEngine):
    """Fast, and wrong."""

    def logits(self, crops: Tensor) -> Tensor:
        return super().logits(crops).roll(1, dims=1)


def test_a_runtime_that_does_not_agree_is_left_out_and_it_is_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "OpenVinoEngine", _Wrong)
    predictor = Predictor(bundle, "auto", "cpu")
    assert predictor.runtime != "openvino"
    assert "golden probabilities differ" in predictor.inference["skipped"]["openvino"]
    assert "left out openvino" in predictor.title


def test_a_runtime_that_is_not_installed_names_the_extra(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"fer-ray\[openvino\]"):
        Predictor(bundle, "fp32", "cpu", runtime="openvino")
    with pytest.raises(UserError, match=r"fer-ray\[onnx\]"):
        Predictor(bundle, "fp32", "cpu", runtime="onnxruntime")
    predictor = Predictor(bundle, "auto", "cpu")
    assert predictor.runtime == "torch"
    assert "no other runtime is installed" in predictor.inference["reason"]


def test_what_cannot_be_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="computes in fp32"):
        Predictor(bundle, "bf16", "cpu", runtime="onnxruntime")
    with pytest.raises(UserError, match="runtime is auto, torch"):
        Predictor(bundle, "fp32", "cpu", runtime="tensorrt")
    with pytest.raises(UserError, match="precision is auto, fp32, bf16"):
        Predictor(bundle, "int8", "cpu")
    job = choice.Job("openvino", "fp32", torch.device("cuda"), 1, None)
    network = CropsToLogits(bundle.model, Predictor(bundle, "fp32", "cpu").preprocess)
    with pytest.raises(UserError, match="computes on the CPU, not on cuda"):
        choice.choose(network, job, torch.zeros(1, 20, 20, dtype=torch.uint8), lambda engine: None)


@pytest.mark.usefixtures("exact")
def test_telemetry_is_off() -> None:
    assert sys.modules["openvino_telemetry"] is None
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_ten_crops_are_averaged_as_logits(runtime: str, tmp_path: Path) -> None:
    made = bundle_of("cnn", tmp_path)
    predictor = Predictor(made, "fp32", "cpu", runtime=runtime, views="ten_crop")
    recipe = made.contents.recipe
    margin = recipe.image_size_px - recipe.crop_px
    total = np.zeros((len(faces()), 7), np.float64)
    preprocess = predictor.preprocess
    for top, left in ((0, 0), (0, margin), (margin, 0), (margin, margin), (margin // 2,) * 2):
        crop = faces()[:, top : top + recipe.crop_px, left : left + recipe.crop_px]
        for view in (crop, crop[:, :, ::-1]):
            with torch.no_grad():
                x = preprocess.scaled(torch.from_numpy(np.ascontiguousarray(view)))
                total += made.model(x).double().numpy()
    assert np.abs(predictor.logits(faces()) - total / 10).max() <= 1e-4
    assert predictor.inference["views"] == "ten_crop"
    single = predictor.logits(faces(), views="single")
    assert np.abs(single - total / 10).max() > 1e-3
