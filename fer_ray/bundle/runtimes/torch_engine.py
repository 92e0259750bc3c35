"""PyTorch: on every device, and the reference for the others."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor

from fer_ray.bundle.runtimes.engine import CropsToLogits
from fer_ray.models.inference import in_channels_last

BATCH_SIZE = 32
"""Images a forward pass on a CPU; larger batches leave its cache and are slower."""


class TorchEngine:
    """channels_last; in bf16 the weights too.

    Args:
        network: on the CPU, in fp32; copied.
        precision: `fp32` or `bf16`.
        device: where it computes.
    """

    runtime = "torch"

    def __init__(self, network: CropsToLogits, precision: str, device: torch.device) -> None:
        self.precision = precision
        self.batch_size = BATCH_SIZE if device.type == "cpu" else 8 * BATCH_SIZE
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._device = device
        self._preprocess = network.preprocess
        self.model = in_channels_last(copy.deepcopy(network.model).to(device, self._dtype))

    def logits(self, crops: Tensor) -> Tensor:
        with torch.inference_mode(), self._exact():
            x = self._preprocess.scaled(crops.to(self._device))
            logits: Tensor = self.model(x.to(self._dtype, memory_format=torch.channels_last))
            return logits.float().cpu()

    def _exact(self) -> contextlib.AbstractContextManager[object]:
        """CUDA's convolutions would round fp32 to TF32 by default."""
        if self._device.type != "cuda" or self.precision != "fp32":
            return contextlib.nullcontext()
        flags: contextlib.AbstractContextManager[object] = torch.backends.cudnn.flags(
            enabled=True, allow_tf32=False
        )
        return flags
