"""The test split is sealed: what training, selection and preprocessing do never depends on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fer_ray.data.loading import load_training_data
from fer_ray.data.prepared import TEST_OPENINGS, Split
from fer_ray.images.preprocess import Preprocess
from fer_ray.training.loop import Training
from tests.small import small_config
from tests.unit.data.prepared_sets import three_splits, write_prepared

RATES = (0.1, 0.003)


def outcome(path: Path) -> tuple[list[torch.Tensor], list[list[float]], int]:
    """Train two configs; tensors that must be equal, the curves, and which of the two is best."""
    tensors: list[torch.Tensor] = []
    curves = []
    for rate in RATES:
        config = small_config(
            {
                "data.source": str(path),
                "data.equalize": "clahe",
                "train.optimizer": {"sgd": {"lr": rate}},
            }
        )
        data = load_training_data(config.data)
        training = Training(config, data)
        preprocess = Preprocess(training.recipe)
        results = list(training.epochs())
        curves.append([result.objective for result in results])
        tensors += training.best_state().values()
        for split in (data.train, data.validation):
            assert isinstance(split, Split)
            tensors.append(preprocess.static(torch.from_numpy(split.images)))
        tensors.append(torch.tensor([training.recipe.mean, training.recipe.std]))
    best = int(np.argmax([max(curve) for curve in curves]))
    return tensors, curves, best


def test_altering_or_removing_the_test_files_changes_nothing(tmp_path: Path) -> None:
    path = write_prepared(tmp_path / "set", three_splits()).path
    tensors, curves, best = outcome(path)
    (part,) = path.glob("part-test-*.parquet")
    for change in (lambda: part.write_bytes(b"not even Parquet"), part.unlink):
        change()
        others, other_curves, other_best = outcome(path)
        assert len(others) == len(tensors) > 10
        for one, two in zip(tensors, others, strict=True):
            assert one.dtype == two.dtype
            assert torch.equal(one, two)
        assert other_curves == curves
        assert other_best == best
    assert not (path / TEST_OPENINGS).exists()
