"""The pages of evaluate and compare: complete, offline, faceless, and safe with hostile names."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.prepared import PreparedSet, read_split
from fer_ray.errors import OutputExistsError
from fer_ray.metrics import RiskCoverage, risk_coverage
from fer_ray.report.comparison_page import comparison_page
from fer_ray.report.evaluation_curves import (
    BAR_HEIGHT,
    MAX_POINTS,
    SIDE,
    reliability_bins,
    risk_chart,
)
from fer_ray.report.evaluation_page import evaluation_page
from fer_ray.report.mistakes import confident_mistakes, worst_mistakes
from tests.pages import EVIL, EVIL_NAMES, Page, assert_offline

Pair = tuple[Predictor, Predictor]


def pages(predictors: Pair, data: PreparedSet, *, with_images: bool) -> dict[str, str]:
    """Both pages on the test split, with groups."""
    evaluation = api.evaluate(predictors[0], data.path, split="test", group_column="group")
    comparison = api.compare(*predictors, data.path, split="test")
    return {
        "evaluate": evaluation_page(evaluation, with_images=with_images),
        "compare": comparison_page(comparison, with_images=with_images),
    }


@pytest.mark.parametrize("with_images", [False, True])
def test_pages_are_offline_and_names_made_of_html_stay_text(
    evil_predictors: Pair, evil_data: PreparedSet, with_images: bool
) -> None:
    for command, text in pages(evil_predictors, evil_data, with_images=with_images).items():
        assert text.startswith(f"<!doctype html>\n<!-- fer-ray {command} -->")
        assert_offline(text)
        page = Page(text)
        for name in EVIL_NAMES:
            assert name in page.words, (command, name)
        assert f"{EVIL} 0" in page.words, "the bundle's name"
        assert "<script>alert(3)<" in page.words, "the data set's path"
        assert ("src", "x") not in page.attributes
        assert ("img" in page.tags) == with_images
        assert (f"{EVIL}/" in page.words) == with_images, "the file's name"
        assert ("No face is shown" in page.words) != with_images


def test_the_evaluation_has_every_part(evil_predictors: Pair, evil_data: PreparedSet) -> None:
    evaluation = api.evaluate(
        evil_predictors[0], evil_data.path, split="test", group_column="group"
    )
    text = evaluation_page(evaluation, with_images=True)
    words = " ".join(Page(text).words.split())
    for part in (
        "All figures",
        "clean accuracy",
        "macro F1",
        "majority baseline",
        "openings of the test split, this one included",
        "image and mirror image",
        "Confusion matrix",
        "Each class",
        "Reliability",
        "Risk and coverage",
        "By group",
        f"{EVIL} 1",
        "The most confident mistakes",
        "The worst mistakes of each class",
    ):
        assert part in words, part
    document = evaluation.document
    assert f"{100 * document['accuracy']:.1f} % of the answers are right" in words
    cells = re.findall(r'--share: ([\d.]+)">([\d,]+)<small>(\d+) %', text)
    confusion = np.array(document["confusion"])
    assert [int(count) for _, count, _ in cells] == confusion.ravel().tolist()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    assert [float(share) for share, _, _ in cells] == pytest.approx(shares.ravel(), abs=6e-4)


def shown(text: str) -> list[bytes]:
    """The pixels of every picture of a page."""
    codes = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))).tobytes() for code in codes]


def test_galleries_show_mistakes_and_nothing_else(
    evil_predictors: Pair, evil_data: PreparedSet
) -> None:
    evaluation = api.evaluate(evil_predictors[0], evil_data.path)
    split, probabilities = evaluation.split, evaluation.probabilities
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != split.labels)
    assert 0 < len(wrong) < len(answers)
    confident, worst = (f(split, probabilities) for f in (confident_mistakes, worst_mistakes))
    assert len(confident) == len(worst) == len(wrong)
    first = wrong[np.argmax(probabilities.max(axis=1)[wrong])]
    assert confident[0].source == split.sources[first]
    assert f"is {split.class_names[split.labels[first]]}" in confident[0].lines[0]
    assert f"said {split.class_names[answers[first]]}" in confident[0].lines[1]
    assert {p.source for p in worst} == {split.sources[row] for row in wrong}
    text = evaluation_page(evaluation, with_images=True)
    assert set(shown(text)) == {split.images[row].tobytes() for row in wrong}
    others = read_split(evil_data, "train").images
    assert len(set(shown(text)) & {image.tobytes() for image in others}) <= 3, "the planted leaks"


def test_the_comparison_shows_what_only_one_has_right(
    evil_predictors: Pair, evil_data: PreparedSet
) -> None:
    comparison = api.compare(*evil_predictors, evil_data.path)
    split = comparison.split
    a, b = (p.argmax(axis=1) == split.labels for p in comparison.probabilities)
    text = comparison_page(comparison, with_images=True)
    assert sorted(shown(text)) == sorted(
        split.images[row].tobytes() for row in np.flatnonzero(a ^ b)
    )
    words = Page(text).words
    for part in ("Figures of each", "The same images", "Where they differ", "McNemar", "Only B"):
        assert part in words, part


def test_pages_replace_only_their_own_kind(
    evil_predictors: Pair, evil_data: PreparedSet, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    for _ in range(2):
        api.evaluate(evil_predictors[0], evil_data.path, views="single", html=page)
    assert page.read_text().startswith("<!doctype html>")
    with pytest.raises(OutputExistsError, match="not a page of `fer-ray compare`"):
        api.compare(*evil_predictors, evil_data.path, html=page)


# --- charts ---------------------------------------------------------------------------------------


def test_bins_stand_where_their_figures_say() -> None:
    rows = [
        {
            "low": 0.0,
            "high": 0.5,
            "count": 10,
            "confidence": 0.4,
            "accuracy": 0.3,
            "accuracy_interval": [0.1, 0.6],
        },
        {
            "low": 0.5,
            "high": 1.0,
            "count": 0,
            "confidence": 0.0,
            "accuracy": 0.0,
            "accuracy_interval": [0.0, 1.0],
        },
    ]
    (found,) = reliability_bins(rows)
    assert (found.x, found.y) == (SIDE * 0.4, SIDE * 0.7)
    assert (found.top, found.bottom) == (SIDE * 0.4, SIDE * 0.9)
    assert (found.left, found.width, found.bar) == (0, SIDE / 2, BAR_HEIGHT)
    assert "10 answers" in found.title


def curve(risk: list[float]) -> RiskCoverage:
    count = len(risk)
    coverage = np.arange(1, count + 1) / count
    return RiskCoverage(np.linspace(1, 0, count), coverage, np.array(risk), 0.0)


def test_the_risk_curve_ends_at_the_error_rate() -> None:
    chart = risk_chart(curve([0.0, 0.1, 0.25]))
    assert chart.ticks == pytest.approx((0, 0.05, 0.1, 0.15, 0.2, 0.25))
    assert chart.path.endswith(f"L{SIDE:g} 0")
    assert chart.y(0.0) == SIDE
    # The error of the very first answers is noise and must not stretch the scale.
    noisy = risk_chart(curve([1.0] * 5 + [0.1] * 995))
    assert noisy.top == pytest.approx(0.1)
    assert noisy.path.count("L") < MAX_POINTS
    assert risk_chart(curve([0.0])).top == 0.02
    assert risk_chart(curve([1.0])).top == 1.0
    perfect = risk_coverage(np.array([0.9, 0.9]), np.array([True, True]))
    assert risk_chart(perfect).path == f"M{SIDE:g} {SIDE:g}"
