"""One small bundle for all tests of scoring."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from tests.bundles import tiny_bundle
from tests.scoring import faces, image_bytes


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "other", seed=1)
    return Predictor(load_bundle(path), "fp32", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eleven faces, four bad files, one that is no image by its name, a hidden one."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for number, pixels in enumerate(faces()):
        place = root / "sub" if number % 2 else root
        Image.fromarray(pixels).save(place / f"face{number:02d}.png")
    (root / "empty.png").write_bytes(b"")
    (root / "half.jpg").write_bytes(image_bytes(form="JPEG")[:400])
    (root / "text.jpg").write_text("These are words.")
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "notes.md").write_text("no image by its name")
    (root / ".hidden.png").write_bytes(image_bytes())
    return root
