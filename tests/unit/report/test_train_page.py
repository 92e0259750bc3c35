"""The page and the picture of a training: its curves, its best epoch, and nothing from outside."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer_ray.errors import UserError
from fer_ray.report.curves import BOTTOM, LEFT, RIGHT, TOP, Panel, ticks, training_panels
from fer_ray.report.curves_png import curves_png
from fer_ray.report.train_page import write_train_page
from fer_ray.runs import RunDirectory
from tests.bundles import tiny_bundle


def row(epoch: int, best_epoch: int, *, diverged: bool = False) -> dict[str, Any]:
    """An epoch: the loss falls, accuracy rises by 2 points an epoch on validation."""
    return {
        "epoch": epoch,
        "train_loss": 2.0 / epoch,
        "train_accuracy": 0.3 + 0.03 * epoch,
        "val_loss": -1.0 if diverged else 1.9 / epoch + 0.1,
        "val_accuracy": 0.3 + 0.02 * epoch,
        "val_macro_f1": 0.4,
        "val_balanced_accuracy": 0.4,
        "objective": 0.5,
        "best_objective": 0.5,
        "best_epoch": best_epoch,
        "lr": 0.1,
        "seconds": 1.5,
        "images_per_s": 1000.0,
        "micro_batch": 16,
        "diverged": diverged,
    }


def curve_of(epochs: int, best: int) -> list[dict[str, Any]]:
    return [row(epoch, min(epoch, best)) for epoch in range(1, epochs + 1)]


# --- geometry -------------------------------------------------------------------------------------


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(0, 1e6),
    most=st.integers(3, 9),
)
def test_ticks_are_few_round_and_around_the_values(low: float, span: float, most: int) -> None:
    found = ticks(low, low + span, most)
    step = found[1] - found[0]
    assert 2 <= len(found) <= most
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= low + span - 1e-6 * step
    assert np.allclose(np.diff(found), step, rtol=1e-6)
    first_digit = step / 10 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(first_digit - digit) for digit in (1, 2, 5, 10)) < 1e-3


@pytest.mark.parametrize(("epochs", "best"), [(1, 1), (2, 1), (9, 7), (36, 35), (1000, 400)])
def test_curves_lie_in_the_plot_and_show_the_best_epoch(epochs: int, best: int) -> None:
    loss, accuracy = training_panels(curve_of(epochs, best))
    for panel in (loss, accuracy):
        assert [curve.name for curve in panel.curves] == ["training", "validation"]
        for curve in panel.curves:
            assert len(curve.points) == epochs
            assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in curve.points)
        assert panel.best == panel.curves[1].points[best - 1]
        assert 1 <= len(panel.x_ticks) <= 9
        assert panel.x_ticks[0].text == "1"
        assert len(panel.strips) == epochs
        assert sum(strip.width for strip in panel.strips) == pytest.approx(RIGHT - LEFT)
    assert accuracy.best_text == f"best epoch {best}: {30 + 2 * best:.1f} %"
    assert loss.best_text == f"best epoch {best}: {1.9 / best + 0.1:.3f}"
    falling = [y for _, y in loss.curves[0].points]
    assert falling == sorted(falling), "a lower loss lies lower"
    rising = [y for _, y in accuracy.curves[1].points]
    assert rising == sorted(rising, reverse=True)


def test_an_epoch_that_diverged_is_left_out() -> None:
    panels = training_panels([*curve_of(3, 3), row(4, 3, diverged=True)])
    assert len(panels[0].curves[0].points) == 3
    assert training_panels([row(1, 0, diverged=True)]) == []


# --- picture --------------------------------------------------------------------------------------


def at(image: Image.Image, panel_number: int, x: float, y: float) -> set[tuple[int, ...]]:
    """The colours around a place of a panel; the picture has two pixels a unit."""
    left, top = round(2 * (480 * panel_number + x)), round(2 * (34 + y))
    box = image.crop((left - 2, top - 2, left + 3, top + 3))
    return {tuple(pixel) for pixel in np.asarray(box).reshape(-1, 3).tolist()}


def test_the_picture_draws_both_curves_where_they_belong() -> None:
    panels: list[Panel] = training_panels(curve_of(9, 7))
    image = Image.open(io.BytesIO(curves_png(panels, "a title " * 200)))
    assert image.format == "PNG"
    assert image.size == (1920, 668)
    image = image.convert("RGB")
    colors = {"training": (59, 111, 212), "validation": (194, 65, 12)}
    for number, panel in enumerate(panels):
        for curve in panel.curves:
            for index in (2, 4, 8):  # in the first epoch both losses are alike
                assert colors[curve.name] in at(image, number, *curve.points[index])
        assert panel.best is not None
        assert (255, 255, 255) in at(image, number, *panel.best), "a ring marks the best epoch"


# --- page -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with an untrained bundle and an invented curve."""
    run = RunDirectory(tmp_path / "run<script>")
    tiny_bundle(run.bundle(0))
    run.point_best(0)
    lineage = json.loads((run.best / "lineage.json").read_text())
    lineage["curve"] = curve_of(9, 7)
    lineage["config"]["name"] = "<img src=x>"
    (run.best / "lineage.json").write_text(json.dumps(lineage))
    return run


def test_the_page_stands_alone_and_names_are_text(run: RunDirectory) -> None:
    page = write_train_page(run).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "run&lt;script&gt;" in page
    assert not re.search(r"https?://|//[a-z]|url\(|@import", page)
    assert "default-src 'none'" in page


def test_the_page_shows_the_best_epoch_and_every_epoch(run: RunDirectory) -> None:
    page = " ".join(write_train_page(run).read_text().split())
    assert "after epoch 7 of 2" in page
    assert page.count("best epoch 7: ") == 2
    assert page.count('<tr class="best">') == 1
    assert '<tr class="best"><td>7</td>' in page
    assert page.count("<title>epoch ") == 18
    metrics = json.loads((run.best / "metrics.json").read_text())["validation"]
    assert f"Validation accuracy {100 * metrics['accuracy']:.1f} %" in page
    for index, item in enumerate(metrics["classes"]):
        for number in metrics["confusion"][index]:
            assert f'title="{number} of {item["count"]}"' in page
    with Image.open(run.path / "curves.png") as image:
        assert image.size == (1920, 668)


def test_short_memory_and_divergence_are_said(run: RunDirectory) -> None:
    lineage = json.loads((run.best / "lineage.json").read_text())
    lineage["curve"] = [*curve_of(3, 2), {**row(4, 2, diverged=True), "micro_batch": 8}]
    (run.best / "lineage.json").write_text(json.dumps(lineage))
    page = " ".join(write_train_page(run).read_text().split())
    assert "The training diverged in epoch 4" in page
    assert '<b>8</b><span class="quiet">images at once, of batches of 16' in page


def test_a_run_without_a_bundle_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not ended"):
        write_train_page(RunDirectory(tmp_path))
