"""OpenVINO on the CPU."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from fer_ray.bundle.runtimes.engine import CropsToLogits, require_package
from fer_ray.errors import UserError

BATCH_SIZE = 64
"""Images a call: 15,200/s against 14,000 in batches of 32 and 10,000 of 128 (2 cores, bf16)."""

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which otherwise sends on import and on each conversion.

    It does without where `openvino_telemetry` cannot be imported. There is no environment variable,
    and the file by which one opts out lies in the user's home and is not ours to write.
    """
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return require_package("openvino", "openvino")


class OpenVinoEngine:
    """The network converted in memory, one inference request a thread.

    Args:
        network: on the CPU, in fp32.
        precision: `fp32` or `bf16`.
        num_threads: of the network.
        crop_px: side of the crops.

    Raises:
        UserError: not installed, or the processor cannot compute in that precision.
    """

    runtime = "openvino"

    def __init__(
        self, network: CropsToLogits, precision: str, num_threads: int, crop_px: int
    ) -> None:
        openvino = import_openvino()
        self.precision = precision
        self.batch_size = BATCH_SIZE
        example = torch.zeros(2, crop_px, crop_px, dtype=torch.uint8)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's tracer, which OpenVINO converts with
            converted = openvino.convert_model(
                copy.deepcopy(network), example_input=example, input=[-1, crop_px, crop_px]
            )
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all its threads
            "INFERENCE_NUM_THREADS": num_threads,
            "ENABLE_CPU_PINNING": False,  # several replicas would be pinned to the same cores
        }
        self._compiled = openvino.Core().compile_model(converted, "CPU", options)
        actual = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if actual != _HINTS[precision]:
            raise UserError(
                f"OpenVINO computes in {actual} on this processor, not in {precision}",
                "Use --precision fp32.",
            )
        self._of_thread = threading.local()

    def logits(self, crops: Tensor) -> Tensor:
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        # NumPy copies on this thread. Torch would wake a thread a core for it, and they go on
        # spinning: OpenVINO's own threads then wait for a core (7,000 images/s, not 12,000).
        batch = np.ascontiguousarray(crops.numpy())
        # The array itself, not a list of it: on the way of a list a call takes 60 us more.
        answer = request.infer(batch, share_inputs=True)
        return torch.from_numpy(answer[0])
