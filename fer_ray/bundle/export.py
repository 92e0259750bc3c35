"""A bundle as one ONNX file: pixels in, calibrated probabilities out, nothing left to get wrong."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_ray import __version__
from fer_ray.bundle.load import Bundle
from fer_ray.bundle.predictor import Predictor, fold_batchnorm
from fer_ray.bundle.runtimes.engine import require_package
from fer_ray.bundle.runtimes.onnx_graph import OPSET, import_onnxruntime, onnx_graph
from fer_ray.errors import BundleError, UserError
from fer_ray.images.preprocess import Preprocess
from fer_ray.store import replacing, require_absent

FORMATS = ("onnx",)
INPUT, OUTPUT = "images", "probabilities"
TOLERANCE = 1.0e-4
"""Largest difference of a golden probability between ONNX Runtime and the Predictor, both fp32."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        input_shape, output_shape: with `batch` for the open dimension.
        max_difference: of a golden probability from the Predictor's.
    """

    path: Path
    bytes: int
    opset: int
    input_shape: tuple[str | int, ...]
    output_shape: tuple[str | int, ...]
    max_difference: float


class _Deployed(nn.Module):
    """uint8 [N, H, W] images as decoded to float32 [N, C] calibrated probabilities."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.preprocess = Preprocess(bundle.contents.recipe)
        self.model = fold_batchnorm(copy.deepcopy(bundle.model))
        self.temperature = bundle.contents.calibration.temperature
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.preprocess(images))
        return (logits / self.temperature).softmax(1)


def export_onnx(bundle: Bundle, out: Path) -> Exported:
    """Write and check the file; it is kept only where ONNX Runtime answers as the Predictor does.

    Raises:
        OutputExistsError: `out` is there.
        UserError: the extra is not installed, or an operation has no form in ONNX.
        BundleError: the answers on the golden images differ; nothing is kept.
    """
    require_absent(out, "the file", "Choose another --out.")
    if out.is_dir():
        raise UserError(f"{out} is a directory", "Give a file's name, such as model.onnx.")
    onnx = require_package("onnx", "onnxruntime")
    import_onnxruntime()
    recipe = bundle.contents.recipe
    example = torch.zeros(2, recipe.source_px, recipe.source_px, dtype=torch.uint8)
    graph = onnx_graph(_Deployed(bundle), example, INPUT, OUTPUT)
    onnx.helper.set_model_props(graph, _properties(bundle))
    graph.producer_name, graph.producer_version = "fer-ray", __version__
    onnx.checker.check_model(graph, full_check=True)
    data = graph.SerializeToString()
    with replacing(out) as temporary:
        temporary.write_bytes(data)
        difference = _check(temporary, bundle)
    shape = ("batch", recipe.source_px, recipe.source_px)
    classes = ("batch", len(bundle.contents.class_names))
    return Exported(out, len(data), OPSET, shape, classes, difference)


def _properties(bundle: Bundle) -> dict[str, str]:
    """What whoever runs the file must know; ONNX keeps strings."""
    contents = bundle.contents
    return {
        "bundle_id": bundle.id,
        "bundle_name": contents.name,
        "labels": json.dumps(contents.class_names),
        "temperature": repr(contents.calibration.temperature),
        "uncertain_below": repr(contents.calibration.threshold),
        "preprocessing": json.dumps({**contents.recipe.as_dict(), "inside_the_graph": True}),
        "fer_ray": __version__,
    }


def _check(path: Path, bundle: Bundle) -> float:
    """Compare the file's answers with the Predictor's: the golden images, at two batch sizes.

    Raises:
        BundleError: they differ.
    """
    session = _session(path)
    images = _golden_images(bundle)
    expected = Predictor(bundle, "fp32", "cpu", runtime="torch").predict(images).probabilities
    difference = 0.0
    for start, end in ((0, len(images)), (0, 1)):
        (found,) = session.run([OUTPUT], {INPUT: images[start:end]})
        difference = max(difference, float(np.abs(found - expected[start:end]).max()))
    if not difference <= TOLERANCE:
        raise BundleError(
            f"ONNX Runtime's golden probabilities differ by {difference:.2g} from the "
            f"Predictor's; at most {TOLERANCE:g} is rounding, so the file is not kept"
        )
    return difference


def _golden_images(bundle: Bundle) -> npt.NDArray[np.uint8]:
    """At the side that the graph takes; the golden faces have one of their own."""
    size = bundle.contents.recipe.source_px
    pixels = bundle.golden_images.unsqueeze(1).float()
    resized = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    return np.asarray(resized.round().squeeze(1).to(torch.uint8).numpy())


def _session(path: Path) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
