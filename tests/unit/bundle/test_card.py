"""The model card: Hugging Face's own parser reads it, and names from users stay text."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from fer_ray.bundle.card import model_card
from fer_ray.bundle.contents import Contents
from fer_ray.bundle.load import find_bundle, load_bundle
from fer_ray.errors import BundleError
from fer_ray.labels import EXPRESSIONS

EVIL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[text](javascript:alert(1))",
    "![pixel](http://tracker/x.png)",
    "a | b | c",
    "`code` **bold** _soft_ ~~gone~~ $x$",
    "# heading\n\n- item\n---\nlicense: mit",
    '"quote": {yaml: [1]} \\ & &lt; <!-- # *x',
    "http://tracker.example @someone :smile:",
)


@pytest.fixture(scope="module")
def shipped() -> Contents:
    return load_bundle(find_bundle(None)).contents


def renamed(contents: Contents, names: tuple[str, ...], other: str) -> Contents:
    """With other class names, and `other` as the name of everything else."""
    metrics = json.loads(json.dumps(contents.metrics))
    for row, name in zip(metrics["validation"]["classes"], names, strict=True):
        row["label"] = name
    lineage = json.loads(json.dumps(contents.lineage))
    lineage["data"]["name"] = lineage["data"]["fingerprint"] = other
    lineage["versions"]["fer_ray"] = other
    return replace(contents, name=other, class_names=names, metrics=metrics, lineage=lineage)


def html_of(card: str) -> str:
    """As a strict CommonMark renderer with tables and raw HTML shows it."""
    body = card.split("\n---\n", 1)[1]
    markdown = MarkdownIt("commonmark", {"html": True})
    return markdown.enable(["table", "strikethrough"]).render(body)


def front_matter(card: str) -> dict[str, Any]:
    data: dict[str, Any] = ModelCard(card).data.to_dict()
    return data


def test_hugging_faces_parser_reads_its_front_matter(shipped: Contents) -> None:
    card = ModelCard(model_card(shipped))
    data = card.data
    assert (data.license, data.license_name, data.license_link) == (
        "other",
        "fer-ray-weights",
        "LICENSE-weights",
    )
    assert data.library_name == "fer-ray"
    assert data.pipeline_tag == "image-classification"
    assert data.model_name == "fer2013-small"
    figures = {result.metric_name: result for result in data.eval_results}
    accuracy = figures["accuracy"]
    assert accuracy.metric_type == "accuracy"
    assert accuracy.metric_value == pytest.approx(0.6754, abs=5e-5)
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("FER2013", "validation")
    assert accuracy.task_type == "image-classification"
    assert figures["macro F1"].metric_value == pytest.approx(0.6441, abs=5e-5)


def test_it_says_what_the_bundle_says(shipped: Contents) -> None:
    card = model_card(shipped)
    assert "67.5 %" in card
    assert "66.0 to 69.1 %" in card
    assert "2,424 right of 3,589" in card
    assert "1,146,951 parameters" in card
    assert "| happy | 895 | 0.855 | 0.868 | 0.844 to 0.889 | 0.861 |" in card
    assert "softmax(logits / 0.894)" in card
    assert "below 0.791 are marked uncertain" in card
    assert "FER2013, 28,709 training images; fingerprint 34177cfc4ddbc3e6" in card
    assert "FER2013's labels are noisy" in card
    assert "FER2013 names no age, sex, skin colour" in card
    assert "not what a person feels" in card
    assert "docs/responsible-use.md" in card
    assert "synthetic" not in card


def test_data_of_ones_own_are_not_taken_for_fer2013(shipped: Contents) -> None:
    card = model_card(renamed(shipped, EXPRESSIONS, "My faces"))
    assert "FER2013" not in card
    assert "Labels of expressions are opinions" in card


@pytest.mark.parametrize("evil", EVIL)
def test_names_made_of_html_or_markdown_stay_text(shipped: Contents, evil: str) -> None:
    plain = html_of(model_card(renamed(shipped, EXPRESSIONS, "name")))
    names = (evil, *EXPRESSIONS[1:])
    card = model_card(renamed(shipped, names, evil))
    html = html_of(card)
    assert _tags(html) == _tags(plain), "no tag more, none less"
    text = " ".join(_text(html).split())
    line = " ".join(evil.split())
    assert text.count(line) >= 3, "title, list of classes, table"
    data = front_matter(card)
    assert data["license"] == "other"
    assert data["model-index"][0]["name"] == line
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == line


def _tags(html: str) -> list[str]:
    return re.findall(r"<[^>]*>", html)


def _text(html: str) -> str:
    from html import unescape

    return unescape(re.sub(r"<[^>]*>", "", html))


def test_very_long_and_unprintable_names_are_cut(shipped: Contents) -> None:
    card = model_card(renamed(shipped, EXPRESSIONS, "x" * 10_000 + "\x1b[2J\u2028"))
    assert len(card) < 10_000
    assert "\x1b" not in card
    assert "\u2028" not in card
    assert front_matter(card)["license"] == "other"


@pytest.mark.parametrize(
    "change",
    [
        lambda m, x: m["validation"].pop("ece"),
        lambda m, x: m["validation"].update(classes=[{}]),
        lambda m, x: m["validation"].update(accuracy_interval=[]),
        lambda m, x: m.update(params="many"),
        lambda m, x: x.update(versions=None),
        lambda m, x: x.update(members=[1]),
    ],
)
def test_figures_that_are_none_make_an_error_of_ours(shipped: Contents, change: Any) -> None:
    metrics = json.loads(json.dumps(shipped.metrics))
    lineage = json.loads(json.dumps(shipped.lineage))
    change(metrics, lineage)
    with pytest.raises(BundleError, match="no model card can be written"):
        model_card(replace(shipped, metrics=metrics, lineage=lineage))


def test_without_figures_it_names_none(shipped: Contents) -> None:
    metrics = {"params": 1, "macs": 2}
    card = model_card(replace(shipped, metrics=metrics))
    assert "None were measured" in card
    assert "model-index" not in card
    assert front_matter(card)["license"] == "other"


@pytest.mark.parametrize(
    ("threshold", "coverage", "words"),
    [
        (0.0, 1.0, "no answer is marked uncertain"),
        (1.0, 0.0, "nearly every answer is marked uncertain"),
        (0.8, 0.4, "40 % of the images"),
    ],
)
def test_thresholds_are_said_in_words(
    shipped: Contents, threshold: float, coverage: float, words: str
) -> None:
    calibration = replace(shipped.calibration, threshold=threshold, coverage=coverage)
    assert words in model_card(replace(shipped, calibration=calibration))


def test_the_card_of_a_bundle_is_its_own(original: Path) -> None:
    card = (original / "README.md").read_text(encoding="utf-8")
    assert card == model_card(load_bundle(original).contents)
