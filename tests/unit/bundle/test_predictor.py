"""The one Predictor: folded and fast, yet the same answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_ray.bundle.load import Bundle, load_bundle
from fer_ray.bundle.predictor import BATCH_SIZE, Predictions, Predictor, fold_batchnorm
from fer_ray.config.sections.model import ModelConfig
from fer_ray.data.faces import draw_faces
from fer_ray.errors import BundleError
from fer_ray.images.preprocess import Preprocess
from fer_ray.models.build import build_model
from fer_ray.models.inference import logits_of


@pytest.fixture(scope="module")
def bundle(original: Path) -> Bundle:
    return load_bundle(original)


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, "fp32", "cpu")


def faces(count: int = 80) -> np.ndarray:
    return draw_faces(count, 31)[0]


def unfolded(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    preprocess = Preprocess(bundle.contents.recipe)
    static = preprocess.static(torch.from_numpy(images))
    return logits_of(bundle.model, preprocess, static, precision="fp32").numpy()


def used(model: nn.Module) -> nn.Module:
    """With batch-norm statistics and affine terms that are not 0 and 1."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            assert isinstance(module.running_mean, torch.Tensor)
            assert isinstance(module.running_var, torch.Tensor)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize(
    "model",
    [
        {"cnn": {"channels": [4, 6], "residual": True}},
        {"cnn": {"channels": [4, 6], "batchnorm": [2], "head": [5], "head_batchnorm": True}},
        {"resnet": {"weights": "none"}},
    ],
    ids=["residual", "some blocks", "resnet"],
)
def test_folding_changes_nothing_but_the_time(model: dict[str, dict[str, object]]) -> None:
    torch.manual_seed(0)
    config = ModelConfig.model_validate(model)
    network = used(build_model(config, num_classes=7, in_channels=1, input_px=32))
    images = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        before = network(images)
        folded = fold_batchnorm(network)
        after = folded(images)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert float((before - after).abs().max() / before.abs().max().clamp(min=1)) <= 1e-4


def test_its_logits_are_the_bundles_within_rounding(bundle: Bundle, predictor: Predictor) -> None:
    difference = np.abs(predictor.logits(faces()) - unfolded(bundle, faces())).max()
    assert difference <= 1e-4
    assert any(isinstance(m, nn.BatchNorm2d) for m in bundle.model.modules()), "left as it was"
    assert not any(isinstance(m, nn.BatchNorm2d) for m in predictor.model.modules())


def test_answers_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    images = faces(BATCH_SIZE * 2 + 5)
    whole = predictor.predict(images).probabilities
    one_by_one = np.concatenate(
        [predictor.predict(images[i : i + 1]).probabilities for i in range(len(images))]
    )
    assert np.abs(whole - one_by_one).max() <= 1e-6
    order = np.random.default_rng(0).permutation(len(images))
    assert np.abs(predictor.predict(images[order]).probabilities - whole[order]).max() <= 1e-6


def test_probabilities_are_softmax_over_the_temperature(
    bundle: Bundle, predictor: Predictor
) -> None:
    assert bundle.contents.calibration.temperature != 1
    scaled = unfolded(bundle, faces()) / bundle.contents.calibration.temperature
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    found = predictor.predict(faces()).probabilities
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5


def test_a_flip_averages_both_views(predictor: Predictor) -> None:
    images = faces(8)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    expected = (predictor.logits(images) + predictor.logits(mirrored)) / 2
    assert np.abs(predictor.logits(images, views="flip") - expected).max() <= 1e-5
    assert np.abs(predictor.logits(images) - expected).max() > 1e-4


def test_no_image_is_no_answer(predictor: Predictor) -> None:
    none = predictor.predict(np.zeros((0, 48, 48), np.uint8))
    assert none.probabilities.shape == (0, 7)
    assert none.scores.shape == none.margins.shape == none.uncertain.shape == (0,)


def test_bf16_stays_near(bundle: Bundle, predictor: Predictor) -> None:
    rounded = Predictor(bundle, "bf16", "cpu")
    assert rounded.precision == "bf16"
    difference = np.abs(
        rounded.predict(faces()).probabilities - predictor.predict(faces()).probabilities
    )
    assert 0 < difference.max() < 0.05


def test_a_fast_form_that_does_not_agree_is_refused(bundle: Bundle) -> None:
    other = replace(bundle, golden_logits=bundle.golden_logits.roll(1, dims=1))
    with pytest.raises(BundleError, match="Use --precision fp32"):
        Predictor(other, "bf16", "cpu")


def test_it_decodes_at_the_side_of_its_data(predictor: Predictor) -> None:
    data = b"P5 2 2 255\n\x00\x40\x80\xff"
    assert predictor.decode(data).pixels.shape == (24, 24) == (predictor.source_px,) * 2


# --- predictions ----------------------------------------------------------------------------------

ROWS = Predictions(
    np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.25, 0.5, 0.25]], np.float32),
    ("a", "b", "c"),
    0.5,
)


def test_answer_score_margin_and_doubt() -> None:
    assert ROWS.label_indices.tolist() == [0, 2, 1]
    assert ROWS.scores.tolist() == pytest.approx([0.7, 0.4, 0.5])
    assert ROWS.margins.tolist() == pytest.approx([0.5, 0.1, 0.25])
    assert ROWS.uncertain.tolist() == [False, True, False]


def test_ranked_is_best_first_ties_in_the_order_of_the_classes() -> None:
    assert [entry["label"] for entry in ROWS.ranked(0)] == ["a", "b", "c"]
    assert [entry["label"] for entry in ROWS.ranked(1)] == ["c", "a", "b"]
    assert ROWS.ranked(2, top_k=1) == [{"label": "b", "score": 0.5}]
    assert type(ROWS.ranked(0)[0]["score"]) is float
