"""Every HTML page in a real browser: wide and narrow, light and dark, without the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright
from typer.testing import CliRunner

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.cli.main import app
from fer_ray.errors import UserError
from fer_ray.report.train_page import write_train_page
from fer_ray.runs import RunDirectory
from fer_ray.score.options import RowOptions
from fer_ray.training.epoch_result import EpochResult
from tests.bundles import tiny_bundle
from tests.pages import EVIL
from tests.scoring import image_bytes, scored
from tests.unit.data.prepared_sets import with_faults, write_prepared

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs {CHROMIUM}")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each command; the data set's directory has a name made of HTML."""
    folder = tmp_path_factory.mktemp("pages")
    bundles = [tiny_bundle(folder / str(seed), seed=seed) for seed in (0, 1)]
    a, b = (Predictor(load_bundle(path), "fp32", "cpu") for path in bundles)
    halved = {
        split: (np.ascontiguousarray(images[:, ::2, ::2]), labels)
        for split, (images, labels) in with_faults().items()
    }
    data = write_prepared(folder / EVIL.replace("/", ""), halved).path
    api.evaluate(a, data, split="test", html=folder / "evaluate.html", with_images=True)
    api.evaluate(a, data, group_column="source", html=folder / "faceless.html")
    api.compare(a, b, data, html=folder / "compare.html", with_images=True)
    api.check_data(data, html=folder / "check.html", with_images=True)
    names = ("evaluate", "faceless", "compare", "check")
    own = {"train": train_page_in(folder / "runs"), "score": score_page_in(folder / "scores", a)}
    return {name: folder / f"{name}.html" for name in names} | own


def train_page_in(folder: Path) -> Path:
    """Of a run with an untrained bundle and the curve of two invented epochs."""
    run = RunDirectory(folder / EVIL.replace("/", ""))
    tiny_bundle(run.bundle(0))
    run.point_best(0)
    lineage = json.loads((run.best / "lineage.json").read_text())
    rows = [
        (1, 1.9, 0.3, 1.8, 0.35, 0.3, 0.3, 0.35, 0.35, 1),
        (2, 1.5, 0.4, 1.6, 0.45, *[0.4] * 4, 2),
    ]
    lineage["curve"] = [EpochResult(*row, 0.1, 1.5, 900.0, 16).as_dict() for row in rows]
    (run.best / "lineage.json").write_text(json.dumps(lineage))
    return write_train_page(run)


def score_page_in(folder: Path, predictor: Predictor) -> Path:
    """Of faces and one broken file, with pictures and the folders' names as labels."""
    source = folder / "in" / "happy"
    source.mkdir(parents=True)
    for number in range(5):
        (source / f"{number}.png").write_bytes(image_bytes(number))
    (source / "broken.png").write_bytes(b"no image")
    out = folder / EVIL.replace("/", "")
    rows = RowOptions(labels_from_folders=True)
    scored(source.parent, out, predictor, rows=rows, report=True, with_images=True)
    return out / "_report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("name", ["evaluate", "faceless", "compare", "check", "train", "score"])
@pytest.mark.parametrize("width_px", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_renders(
    pages: dict[str, Path], browser: Browser, name: str, width_px: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width_px, "height": 900},
        color_scheme="light" if scheme == "light" else "dark",
    )
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith(("data:image/png", "file:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    assert page.evaluate("document.images.length") == 0 or name != "faceless"
    broken = "[...document.images].filter(image => !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.scripts.length") == 0
    assert EVIL.replace("/", "") in page.inner_text("body")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background[4:-1].split(", ")) / 3
    assert (brightness > 128) == (scheme == "light")
    context.close()


def test_the_commands_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command line: evaluate a bundle, calibrate it, compare the two."""
    bundle = tiny_bundle(tmp_path / "a")
    halved = {
        split: (np.ascontiguousarray(images[:, ::2, ::2]), labels)
        for split, (images, labels) in with_faults().items()
    }
    data = write_prepared(tmp_path / "set", halved).path

    monkeypatch.chdir(tmp_path)

    def fer_ray(*words: object, error: type[Exception] | None = None) -> str:
        done = CliRunner().invoke(app, [*map(str, words), "--data", str(data)])
        if error is not None:
            assert isinstance(done.exception, error)
            return str(done.exception)
        assert done.exit_code == 0, done.output
        return done.stdout

    text = fer_ray("evaluate", bundle, "--split", "test", "--html", "e.html")
    assert "majority baseline" in text
    assert "opened once" in text
    text = fer_ray("calibrate", bundle, "--out", "b", "--target-precision", "0.5")
    assert "held out" in text
    text = fer_ray("compare", bundle, "b", "--html", "c.html", "--with-images")
    assert "no difference" in text
    assert "beats" not in text
    assert (tmp_path / "e.html").is_file()
    assert (tmp_path / "c.html").is_file()
    assert "already exists" in fer_ray("calibrate", bundle, "--out", "b", error=UserError)
    assert "no page is asked for" in fer_ray("evaluate", bundle, "--with-images", error=UserError)
