"""ONNX Runtime on the CPU; it computes in fp32."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from fer_ray.bundle.runtimes.engine import CropsToLogits
from fer_ray.bundle.runtimes.onnx_graph import import_onnxruntime, onnx_graph
from fer_ray.errors import UserError

BATCH_SIZE = 32


class OnnxEngine:
    """The network exported in memory.

    Args:
        network: on the CPU, in fp32.
        precision: `fp32`.
        num_threads: of the network.
        crop_px: side of the crops.

    Raises:
        UserError: not installed, or another precision.
    """

    runtime = "onnxruntime"

    def __init__(
        self, network: CropsToLogits, precision: str, num_threads: int, crop_px: int
    ) -> None:
        if precision != "fp32":
            raise UserError(
                f"ONNX Runtime computes in fp32 on a CPU, not in {precision}",
                "Use --precision fp32, or another --runtime.",
            )
        onnxruntime = import_onnxruntime()
        self.precision = precision
        self.batch_size = BATCH_SIZE
        example = torch.zeros(2, crop_px, crop_px, dtype=torch.uint8)
        graph = onnx_graph(copy.deepcopy(network), example, "crops", "logits")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def logits(self, crops: Tensor) -> Tensor:
        # Copied by NumPy: see the other engine.
        (answer,) = self._session.run(None, {"crops": np.ascontiguousarray(crops.numpy())})
        return torch.from_numpy(answer)
