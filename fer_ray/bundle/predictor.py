"""The one Predictor: offline and online, it alone turns images into probabilities."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer_ray.bundle.load import Bundle
from fer_ray.errors import BundleError
from fer_ray.images.decode import Decoded, decode
from fer_ray.images.preprocess import Preprocess
from fer_ray.models.inference import (
    evaluating,
    in_channels_last,
    resolve_device,
    resolve_precision,
)

BATCH_SIZE = 32
"""Images a forward pass on a CPU; larger batches leave its cache and are slower."""

AGREEMENT = {"fp32": 1.0e-3, "bf16": 0.05}
"""Largest difference of a golden probability after folding and rounding to a precision."""


@dataclass(frozen=True)
class Predictions:
    """Answers for N images.

    Attributes:
        probabilities: float32 [N, C], softmax(logits / temperature).
        class_names: C names.
        threshold: scores below are uncertain.
    """

    probabilities: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    threshold: float

    @property
    def label_indices(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Probability of the answer, float32 [N]."""
        return np.asarray(self.probabilities.max(axis=1, initial=0.0), dtype=np.float32)

    @property
    def margins(self) -> npt.NDArray[np.float32]:
        """Score minus that of the second class, float32 [N]."""
        top2 = np.sort(self.probabilities, axis=1)[:, -2:]
        return np.asarray(top2[:, 1] - top2[:, 0], dtype=np.float32)

    @property
    def uncertain(self) -> npt.NDArray[np.bool_]:
        return self.scores < self.threshold

    def ranked(self, row: int, top_k: int | None = None) -> list[dict[str, Any]]:
        """`[{"label", "score"}]` of one image, best first."""
        values = self.probabilities[row]
        order = np.argsort(-values, kind="stable")[:top_k]
        return [{"label": self.class_names[i], "score": float(values[i])} for i in order]


class Predictor:
    """A bundle made fast: batch norm folded, channels_last, bf16 where native.

    Args:
        bundle: checked.
        precision: `auto`, `fp32` (reproducible everywhere) or `bf16`.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        BundleError: the fast form does not agree with the golden answers.
    """

    def __init__(self, bundle: Bundle, precision: str = "auto", device: str = "auto") -> None:
        self.bundle = bundle
        self.class_names = bundle.contents.class_names
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.runtime = "torch"
        self.preprocess = Preprocess(bundle.contents.recipe)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        model = fold_batchnorm(copy.deepcopy(bundle.model).eval())
        self.model = in_channels_last(model.to(self.device, self._dtype))
        self._temperature = bundle.contents.calibration.temperature
        self._check()

    @property
    def source_px(self) -> int:
        """Side at which images are decoded."""
        return self.bundle.contents.recipe.source_px

    def decode(self, data: bytes) -> Decoded:
        """Decode one file as this network wants it.

        Raises:
            DecodeError: see `fer_ray.images.decode`.
        """
        return decode(data, self.source_px)

    def logits(
        self, images: npt.NDArray[np.uint8], *, flip: bool = False
    ) -> npt.NDArray[np.float32]:
        """Raw network output.

        Args:
            images: uint8 [N, H, W], 0-255, decoded at `source_px`.
            flip: average each image's logits with its mirror image's.

        Returns:
            float32 [N, C].
        """
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        with evaluating(self.model):
            for start in range(0, len(images), BATCH_SIZE):
                chunk = torch.from_numpy(images[start : start + BATCH_SIZE]).to(self.device)
                x = self.preprocess(chunk).to(self._dtype, memory_format=torch.channels_last)
                logits = self.model(x).float()
                if flip:
                    logits = (logits + self.model(x.flip(-1)).float()) / 2
                parts.append(logits.cpu().numpy())
        return np.concatenate(parts)

    def predict(self, images: npt.NDArray[np.uint8]) -> Predictions:
        """Classify images, uint8 [N, H, W] decoded at `source_px`."""
        scaled = torch.from_numpy(self.logits(images)) / self._temperature
        probabilities = scaled.softmax(1).numpy()
        threshold = self.bundle.contents.calibration.threshold
        return Predictions(probabilities, self.class_names, threshold)

    def _check(self) -> None:
        expected = (self.bundle.golden_logits / self._temperature).softmax(1).numpy()
        actual = self.predict(self.bundle.golden_images.numpy()).probabilities
        difference = float(np.abs(actual - expected).max())
        if not difference <= AGREEMENT[self.precision]:
            raise BundleError(
                f"in {self.precision} the golden probabilities differ by {difference:.2g}; "
                f"at most {AGREEMENT[self.precision]:g} is rounding",
                "Use --precision fp32.",
            )


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Fold each batch norm that follows a convolution into it, in place, for evaluation."""
    previous_name, previous = "", None
    for name, child in list(model.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            setattr(model, previous_name, fuse_conv_bn_eval(previous, child))
            setattr(model, name, nn.Identity())
        else:
            fold_batchnorm(child)
        previous_name, previous = name, child
    return model
