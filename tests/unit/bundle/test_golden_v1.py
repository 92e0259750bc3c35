"""A bundle of format 1, kept since that format was made: it loads for ever.

If this fails, a change broke every bundle that users have. Change the code, never the bundle.
"""

from pathlib import Path

import numpy as np
import torch

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.labels import EXPRESSIONS
from tests.golden.rebuild_bundle_v1 import build

KEPT = Path(__file__).parents[2] / "golden" / "bundle-v1"
ANSWERS = [0, 0, 0, 1, 4, 4, 0, 0, 0, 0, 0, 0, 1, 4, 1, 4]
ID = "1b6d069f7f62fb2a8f0a518437f51ed13f81c04c6394cf0ea54e3a965c92ed29"


def test_it_loads_with_its_recorded_logits() -> None:
    bundle = load_bundle(KEPT)
    assert bundle.id == ID
    assert bundle.warnings == ()
    assert bundle.contents.name == "golden-v1"
    assert bundle.contents.class_names == EXPRESSIONS
    predictor = Predictor(bundle, "fp32", "cpu")
    logits = predictor.logits(bundle.golden_images.numpy())
    np.testing.assert_allclose(logits, bundle.golden_logits, atol=1e-4, rtol=0)
    assert bundle.golden_logits.argmax(1).tolist() == ANSWERS


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 100_000


def test_the_script_makes_the_like_of_it(tmp_path: Path) -> None:
    made = load_bundle(build(tmp_path / "made"))
    kept = load_bundle(KEPT)
    assert made.contents.recipe == kept.contents.recipe
    assert {n: v.shape for n, v in made.model.state_dict().items()} == {
        n: v.shape for n, v in kept.model.state_dict().items()
    }
    assert torch.equal(made.golden_images, kept.golden_images)
