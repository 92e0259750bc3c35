"""From a torch module to an ONNX graph, in memory."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fer_ray.bundle.runtimes.engine import require_package
from fer_ray.errors import UserError

OPSET = 20
"""Of ONNX's own operators; ONNX Runtime reads it from version 1.17 on."""


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime without its telemetry, on by default in its wheels since 1.29."""
    # Read once, when it is loaded; it then makes no uploader and no device id.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    runtime = require_package("onnxruntime", "onnxruntime")
    runtime.disable_telemetry_events()  # where somebody else loaded it before
    return runtime


def onnx_graph(module: nn.Module, example: Tensor, input_name: str, output_name: str) -> Any:
    """Export a module of one input and one output, its first dimension left open.

    Args:
        module: evaluation mode, on the CPU.
        example: an input with at least two rows.
        input_name, output_name: in the graph.

    Returns:
        an `onnx.ModelProto`.

    Raises:
        UserError: not installed, an operation has no counterpart, or the batch's size is baked in.
    """
    for name in ("onnx", "onnxscript"):
        require_package(name, "onnxruntime")
    try:
        with warnings.catch_warnings(), torch.no_grad(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0][:300]
        raise UserError(f"this network has no form in ONNX: {cause}") from error
    assert program is not None
    graph = program.model_proto
    if not graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise UserError("this network has no form in ONNX: the exporter fixed its batch size")
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints and logs on its way; its errors are raised all the same."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
