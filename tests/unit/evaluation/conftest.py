"""Two small bundles and a data set with planted leaks."""

from pathlib import Path

import numpy as np
import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.faces import draw_faces
from tests.bundles import tiny_bundle
from tests.unit.data.prepared_sets import with_faults, write_prepared


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Read only; other weights each."""
    folder = tmp_path_factory.mktemp("pair")
    return tiny_bundle(folder / "a"), tiny_bundle(folder / "b", seed=1)


@pytest.fixture(scope="session")
def predictors(bundles: tuple[Path, Path]) -> tuple[Predictor, Predictor]:
    a, b = (Predictor(load_bundle(path), "fp32", "cpu") for path in bundles)
    return a, b


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """24 x 24 pixels. Validation 0, 3 are in train; test 0 in both, 1 and 2 in validation."""
    halved = {
        split: (np.ascontiguousarray(images[:, ::2, ::2]), labels)
        for split, (images, labels) in with_faults().items()
    }
    return write_prepared(tmp_path / "set", halved).path


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """700 validation faces, 24 x 24 pixels."""
    images, labels = draw_faces(742, 11)
    images = np.ascontiguousarray(images[:, ::2, ::2])
    parts = {"train": (images[:42], labels[:42]), "validation": (images[42:], labels[42:])}
    return write_prepared(tmp_path / "many", parts).path
