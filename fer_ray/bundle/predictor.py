"""The one Predictor: offline and online, it alone turns images into probabilities."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_ray.bundle.load import Bundle
from fer_ray.bundle.runtimes import choice
from fer_ray.bundle.runtimes.engine import (
    PRECISIONS,
    RUNTIMES,
    CropsToLogits,
    Engine,
    fold_batchnorm,
)
from fer_ray.bundle.runtimes.torch_engine import BATCH_SIZE, TorchEngine
from fer_ray.errors import BundleError, UserError
from fer_ray.images.decode import Decoded, decode
from fer_ray.images.preprocess import Preprocess
from fer_ray.images.views import check_views, crops_of
from fer_ray.models.inference import resolve_device

__all__ = ["AGREEMENT", "BATCH_SIZE", "Predictions", "Predictor", "fold_batchnorm"]

AGREEMENT = {
    ("torch", "fp32"): 1.0e-3,
    ("openvino", "fp32"): 1.0e-3,
    ("onnxruntime", "fp32"): 1.0e-3,
    ("torch", "bf16"): 0.05,
    ("openvino", "bf16"): 0.05,
}
"""Largest difference of a golden probability from the one the bundle was saved with.

In fp32 what another processor rounds differently; in bf16 eight bits instead of 24 in each layer.
"""


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
    """A bundle at work in the runtime that was asked for, or in the fastest.

    Args:
        bundle: checked.
        precision: `auto`, `fp32` (reproducible everywhere: torch unless a runtime is named) or
            `bf16`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`.
        views: what `predict` averages over; see `fer_ray.images.views`.
        num_threads: of the network; torch's is a setting of the process. Torch's present one where
            it is None.
        expected_images: how many there are to classify, where that is known: for few of them
            `auto` stays with torch.

    Raises:
        UserError: an unknown word, or a runtime that is not installed or cannot compute so here.
        BundleError: the fast form does not agree with the golden answers.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        device: str = "auto",
        *,
        runtime: str = "auto",
        views: str = "single",
        num_threads: int | None = None,
        expected_images: int | None = None,
    ) -> None:
        recipe = bundle.contents.recipe
        if runtime not in ("auto", *RUNTIMES):
            raise UserError(f"runtime is auto, {', '.join(RUNTIMES)}, but got {runtime!r}")
        if precision not in PRECISIONS:
            raise UserError(f"precision is {', '.join(PRECISIONS)}, but got {precision!r}")
        self.bundle = bundle
        self.class_names = bundle.contents.class_names
        self.views = check_views(views, recipe.image_size_px, recipe.crop_px)
        # The other runtimes compute on the CPU alone.
        on_cpu = device == "auto" and runtime in ("openvino", "onnxruntime")
        self.device = resolve_device("cpu" if on_cpu else device)
        self.num_threads = num_threads or torch.get_num_threads()
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.preprocess = Preprocess(recipe)
        self._temperature = bundle.contents.calibration.temperature
        model = fold_batchnorm(copy.deepcopy(bundle.model).eval())
        num_views = {"single": 1, "flip": 2, "ten_crop": 10}[self.views]
        job = choice.Job(
            runtime,
            precision,
            self.device,
            self.num_threads,
            None if expected_images is None else expected_images * num_views,
        )
        self._choice = choice.choose(
            CropsToLogits(model, self.preprocess), job, self._golden_crops(), self._check
        )
        self._engine = self._choice.engine
        self.runtime = self._engine.runtime
        self.precision = self._engine.precision
        self.batch_size = self._engine.batch_size

    @property
    def model(self) -> nn.Module:
        """Torch's network with batch norm folded; only in torch."""
        assert isinstance(self._engine, TorchEngine)
        return self._engine.model

    @property
    def source_px(self) -> int:
        """Side at which images are decoded."""
        return self.bundle.contents.recipe.source_px

    @property
    def inference(self) -> dict[str, Any]:
        """How it computes and why so: runtime, precision, versions, what was measured."""
        return {
            **choice.as_dict(self._choice),
            "device": str(self.device),
            "num_threads": self.num_threads,
            "views": self.views,
        }

    @property
    def title(self) -> str:
        """The choice and its reason, in one line."""
        version = self._choice.versions[self.runtime]
        views = "" if self.views == "single" else f", views {self.views}"
        return (
            f"{self.runtime} {version} in {self.precision} on {self.device}, "
            f"{self.num_threads} threads{views} ({self._choice.reason})"
        )

    def decode(self, data: bytes, max_pixels: int | None = None) -> Decoded:
        """Decode one file as this network wants it.

        Args:
            data: the file.
            max_pixels: an image that says it has more is refused; the decoder's bound if None.

        Raises:
            DecodeError: see `fer_ray.images.decode`.
        """
        return decode(data, self.source_px, max_pixels)

    def logits(
        self, images: npt.NDArray[np.uint8], *, views: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Raw network output, averaged over the views.

        Args:
            images: uint8 [N, H, W], 0-255, decoded at `source_px`.
            views: others than the Predictor's own.

        Returns:
            float32 [N, C].

        Raises:
            UserError: views that such images do not have.
        """
        recipe = self.bundle.contents.recipe
        wanted = self.views
        if views is not None:
            wanted = check_views(views, recipe.image_size_px, recipe.crop_px)
        if 0 < len(images) <= self.batch_size:
            return self._logits_of_batch(images, wanted)
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        for start in range(0, len(images), self.batch_size):
            parts.append(self._logits_of_batch(images[start : start + self.batch_size], wanted))
        return np.concatenate(parts)

    def _logits_of_batch(
        self, images: npt.NDArray[np.uint8], views: str
    ) -> npt.NDArray[np.float32]:
        static = self.preprocess.static(torch.from_numpy(images).to(self.device))
        crops = crops_of(static, self.bundle.contents.recipe.crop_px, views)
        answers = [self._engine.logits(crop) for crop in crops]
        mean = answers[0] if len(answers) == 1 else torch.stack(answers).mean(0)
        return np.asarray(mean.numpy(), dtype=np.float32)

    def predict(self, images: npt.NDArray[np.uint8]) -> Predictions:
        """Classify images, uint8 [N, H, W] decoded at `source_px`."""
        probabilities = self._probabilities(self.logits(images))
        threshold = self.bundle.contents.calibration.threshold
        return Predictions(probabilities, self.class_names, threshold)

    def _probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """softmax(logits / temperature), in NumPy.

        Torch would take a thread a core for it, which go on spinning into the next batch: that
        costs 2 ms, as much as the network itself for 16 images in OpenVINO.
        """
        scaled = logits / np.float32(self._temperature)
        scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
        np.exp(scaled, out=scaled)
        scaled /= scaled.sum(axis=1, keepdims=True)
        return np.asarray(scaled, dtype=np.float32)

    def _golden_crops(self) -> Tensor:
        static = self.preprocess.static(self.bundle.golden_images)
        return crops_of(static, self.bundle.contents.recipe.crop_px, "single")[0]

    def _check(self, engine: Engine) -> None:
        """Compare with what the bundle was saved with."""
        expected = self._probabilities(self.bundle.golden_logits.numpy())
        actual = self._probabilities(engine.logits(self._golden_crops()).numpy())
        difference = float(np.abs(actual - expected).max())
        tolerance = AGREEMENT[engine.runtime, engine.precision]
        if not difference <= tolerance:
            raise BundleError(
                f"in {engine.runtime} and {engine.precision} the golden probabilities differ by "
                f"{difference:.2g}; at most {tolerance:g} is rounding",
                "Use --precision fp32.",
            )
