"""From pixels to rows: the network's part of a chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from fer_ray.bundle.predictor import Predictor
from fer_ray.models.inference import features_of, num_features
from fer_ray.score.options import RowOptions
from fer_ray.score.prepare import Pixels, Prepared
from fer_ray.score.rows import Answers, schema, with_answers


class Classifier:
    """A Predictor that answers in rows.

    Args:
        predictor: the bundle at work.
        options: what rows hold.
        kept: the user's own columns.
    """

    def __init__(self, predictor: Predictor, options: RowOptions, kept: pa.Schema) -> None:
        self.predictor, self._options, self.kept = predictor, options, kept
        self.num_features = num_features(predictor.bundle.model) if options.embeddings else 0
        self.schema = schema(predictor.class_names, options, kept, self.num_features)

    @contextlib.contextmanager
    def many(self, num_threads: int) -> Iterator[int]:
        """How many chunks are best classified at once, and torch set to it meanwhile.

        On a CPU several chunks on one thread each: no thread waits for another at every layer. Two
        threads a chunk were much slower than one on a busy machine; chunks side by side are not
        yet measured on a quiet one.
        Other runtimes and devices share out their own work.

        Args:
            num_threads: cores to use.
        """
        if self.predictor.runtime != "torch" or self.predictor.device.type != "cpu":
            yield 1
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield num_threads
        finally:
            torch.set_num_threads(before)

    def classify(self, prepared: Prepared) -> pa.Table:
        """Rows of a chunk, schema v1; several threads may call it at once."""
        predictions = self.predictor.predict(prepared.pixels)
        answers = Answers(
            predictions.probabilities,
            predictions.scores,
            predictions.margins,
            predictions.uncertain,
            self._features(prepared.pixels) if self._options.embeddings else None,
        )
        return with_answers(prepared.rows, answers, self.schema, self._options.top_k)

    def _features(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """By torch in fp32 whatever the runtime: runtimes give logits only."""
        bundle = self.predictor.bundle
        return features_of(bundle.model, self.predictor.preprocess, pixels)
