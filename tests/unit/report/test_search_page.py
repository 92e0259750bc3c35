"""The page of a search: complete, offline, safe with hostile names, and sound in a real browser."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fer_ray.bundle.manifest import check_manifest
from fer_ray.cli.main import app
from fer_ray.errors import (
    InterruptedRunError,
    NothingSucceededError,
    OutputExistsError,
    UserError,
)
from fer_ray.report.gap import gap_of, interval_gap
from fer_ray.report.scales import Axis, log_marks, marks_of, number_text
from fer_ray.report.search_curves import choose_trials, curves_of
from fer_ray.report.search_page import search_page, with_search_page, write_search_page
from fer_ray.report.search_params import parallel_of, slices_of
from fer_ray.runs import RunDirectory
from fer_ray.search.history import TrialHistory
from fer_ray.search.importance import importances
from fer_ray.search.reading import read_run
from tests.bundles import tiny_bundle
from tests.searches import pretend_search


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Forty trials; the winner and trial 0 have bundles."""
    made = pretend_search(tmp_path_factory.mktemp("search") / "run", with_bundles=True)
    tiny_bundle(made.bundle(0), seed=1)
    tiny_bundle(made.bundle(read_run(made.path).ranking[0].number), seed=2)
    return made


class Words(HTMLParser):
    """Visible text, tags and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_happened(run: RunDirectory) -> None:
    history = read_run(run.path)
    page = search_page(history)
    words = Words(page)
    winner = history.ranking[0]
    assert f"Trial {winner.number} won with val/accuracy {winner.best:.4f}" in words.text
    assert re.search(r"McNemar's test \(.*\) on the same 600 validation images", words.text)
    for heading in (
        "Leaderboard",
        "Learning curves",
        "What mattered",
        "PED-ANOVA",
        "fANOVA",
        "Slices",
        "Parallel coordinates",
        "Timeline",
        "Confusion of the winner",
        "Failures",
        "To repeat it",
    ):
        assert heading in words.text, heading
    assert "fer-ray tune pretended.yaml -s search.trials=40" in words.text
    assert f"fer-ray train {run.path}/trials/{winner.number}/resolved.yaml" in words.text
    assert "was never trained, such as trial 40: 31,000,000 parameters" in words.text
    assert page.count('class="curve winner"') == page.count('class="curve first"') == 1
    assert page.count('class="curve ') == len(history.ranking)
    assert page.count('class="block ') == 40
    assert "rung 3" in words.text
    assert "rung 9" in words.text


def test_nothing_is_fetched_and_nothing_runs(run: RunDirectory) -> None:
    words = Words(search_page(read_run(run.path)))
    assert "script" not in words.tags
    assert "link" not in words.tags
    assert words.addresses == []


def test_html_in_names_stays_text(tmp_path: Path) -> None:
    run = pretend_search(tmp_path / "<img src=x onerror=alert(1)>", trials=8)
    page = search_page(read_run(run.path))
    assert "<img" not in page
    assert "<b>out of memory" not in page
    assert "&lt;b&gt;out of memory&lt;/b&gt; &amp; more" in page


def test_the_page_replaces_itself_and_is_small(run: RunDirectory) -> None:
    first = write_search_page(run.path)
    assert first == run.path / "report.html"
    assert first.stat().st_size < 400_000
    before = first.read_text()
    write_search_page(run.path)
    assert first.read_text() == before
    result = CliRunner().invoke(app, ["report", str(run.path)])
    assert result.exit_code == 0, result.output
    assert str(first) in result.stderr


def test_a_search_leaves_its_page_however_it_ends(tmp_path: Path) -> None:
    run = pretend_search(tmp_path / "run", trials=4)
    page = run.path / "report.html"
    assert with_search_page(run.path, lambda: 7) == 7
    assert page.is_file()
    for error in (InterruptedRunError("by Ctrl-C"), NothingSucceededError("none")):
        page.unlink()
        with pytest.raises(type(error)):
            with_search_page(run.path, functools.partial(throw, error))
        assert page.is_file()
    page.unlink()
    with pytest.raises(OutputExistsError):
        with_search_page(run.path, functools.partial(throw, OutputExistsError("there")))
    assert not page.exists()
    (run.path / "study.db").unlink()
    with pytest.raises(InterruptedRunError):
        with_search_page(run.path, functools.partial(throw, InterruptedRunError("early")))


def throw(error: Exception) -> None:
    raise error


def test_a_search_under_way_and_one_without_a_value(tmp_path: Path) -> None:
    cut = pretend_search(tmp_path / "cut", trials=8, until_s=30.0)
    page = search_page(read_run(cut.path))
    assert "leads so far" in page
    assert f"fer-ray resume {cut.path}" in page
    assert 'class="block running"' in page
    nothing = pretend_search(tmp_path / "nothing", trials=4, until_s=0.5)
    page = search_page(read_run(nothing.path))
    assert "No trial has a value yet." in page
    assert "Learning curves" not in page
    with pytest.raises(UserError):
        write_search_page(tmp_path)


def test_trials_that_time_ended_while_ahead_are_named(run: RunDirectory) -> None:
    history = read_run(run.path)
    winner = history.winner
    assert winner is not None
    there = winner.value_at(2)
    assert there is not None

    def cut(number: int, value: float) -> TrialHistory:
        curve = [{**row, "best_objective": value} for row in winner.curve[:2]]
        return replace(winner, number=number, ended="time budget", curve=tuple(curve))

    both = (*history.trials, cut(900, there + 0.001), cut(901, there - 0.001))
    page = search_page(replace(history, trials=both))
    assert "Ahead of it at the same epoch when the time budget ended them: trial 900 " in page
    assert f"({there + 0.001:.4f} at epoch 2, then {there:.4f})" in page
    assert "trial 901 (" not in page
    assert "Ahead of it at the same epoch" not in search_page(history)


def test_without_bundles_or_data_the_verdict_says_so(run: RunDirectory, tmp_path: Path) -> None:
    bare = pretend_search(tmp_path / "bare", trials=14)
    assert "left no bundle" in search_page(read_run(bare.path))
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    text = (path / "space.yaml").read_text()
    (path / "space.yaml").write_text(text.replace("source: sample", "source: nowhere"))
    page = search_page(read_run(path))
    assert "Not tested on the images" in page
    assert "Newcombe&#39;s interval" in page


def test_confirmation_decides_where_it_was_made(run: RunDirectory) -> None:
    history = read_run(run.path)
    winner = history.ranking[0].number
    row = {
        "trial": winner,
        "accuracy": 0.661,
        "default_accuracy": 0.64,
        "difference": 0.021,
        "low": 0.004,
        "high": 0.038,
        "smallest": 0.017,
        "verdict": "beats",
    }
    other = {**row, "trial": 17, "difference": 0.001, "verdict": "cannot tell"}
    trainings = [{"trial": trial, "index": i} for trial in (0, winner, 17) for i in range(3)]

    def page_of(first: dict[str, Any]) -> str:
        confirm = {"comparisons": [first, other], "trainings": trainings}
        attributes = {**history.attributes, "confirm": confirm}
        return search_page(replace(history, attributes=attributes))

    page = page_of(row)
    assert "Confirmed on 3 fresh seeds: it beats the defaults" in page
    assert "+2.1 points (95 % over all comparisons: +0.4 to +3.8)" in page
    assert "trial 17 cannot tell (+0.1)" in page
    assert 'class="verdict real"' in page
    assert "McNemar" not in page
    page = page_of({**row, "low": -0.01, "verdict": "cannot tell"})
    assert 'class="verdict open"' in page
    assert "A difference of about 1.7 points would have shown" in page


# --- figures --------------------------------------------------------------------------------------


def test_the_paired_interval_covers_the_true_gain() -> None:
    generator = np.random.default_rng(0)
    covered = paired_width = unpaired_width = 0.0
    for _ in range(400):
        hard = generator.random(800)
        ours, theirs = hard < 0.65, hard + generator.normal(0, 0.05, 800) < 0.62
        gap = gap_of(ours, theirs)
        covered += gap.low <= 0.03 <= gap.high
        loose = interval_gap(int(ours.sum()), int(theirs.sum()), 800)
        paired_width += gap.high - gap.low
        unpaired_width += loose.high - loose.low
    assert 0.92 <= covered / 400 <= 0.98
    assert paired_width < 0.6 * unpaired_width


def test_the_same_answers_are_no_gap() -> None:
    right = np.arange(3000) % 3 > 0
    gap = gap_of(right, right)
    assert (gap.gain, gap.p) == (0.0, 1.0)
    assert -0.002 < gap.low < 0 < gap.high < 0.002
    assert not gap.is_real


def trial_of(number: int, value: float, params: dict[str, float]) -> TrialHistory:
    text = json.dumps(
        {
            "name": "FloatDistribution",
            "attributes": {"low": 0.0, "high": 1.0, "log": False, "step": None},
        }
    )
    return TrialHistory(
        number=number,
        state="complete",
        ended="complete",
        params=dict(params),
        distributions=dict.fromkeys(params, text),
        stored=dict(params),
        curve=({"epoch": 1, "best_objective": value},),
    )


def test_what_mattered_finds_what_matters(run: RunDirectory) -> None:
    generator = np.random.default_rng(0)
    drawn = [{name: float(generator.random()) for name in ("a", "b", "c")} for _ in range(60)]
    for number, params in enumerate(drawn):
        if number % 2:
            params["d"] = float(generator.random())  # only half of the trials reach it
    trials = tuple(trial_of(n, -((p["b"] - 0.3) ** 2), p) for n, p in enumerate(drawn))
    history = replace(read_run(run.path), trials=trials, attributes={})
    found = importances(history)
    assert (found.epoch, found.num_trials) == (1, 60)
    ped, fanova = found.answers
    assert ped.shares[0][0] == fanova.shares[0][0] == "b"
    assert fanova.shares[0][1] > 0.8
    assert {address for address, _ in ped.shares} == {"a", "b", "c", "d"}
    assert {address for address, _ in fanova.shares} == {"a", "b", "c"}
    assert "hint" not in found.note
    few = importances(replace(history, trials=trials[:7]))
    assert not few.answers
    assert "fewer than 8" in few.note
    assert "hint" in importances(replace(history, trials=trials[:30])).note


def test_every_value_lies_on_its_chart(run: RunDirectory) -> None:
    history = read_run(run.path)
    order = [hole.address for hole in history.space.holes] if history.space else []
    for chart in slices_of(history, order):
        for point in chart.points:
            assert chart.left <= point.x <= chart.right
            assert chart.top <= point.y <= chart.bottom
    parallel = parallel_of(history, order)
    assert parallel is not None
    assert len(parallel.strands) == len(history.ranking)
    assert parallel.strands[-1].is_winner
    heights = [float(y) for s in parallel.strands for y in re.findall(r" (-?[\d.]+)", s.path)]
    assert min(heights) >= parallel.top
    assert max(heights) <= parallel.unused
    curves = curves_of(history)
    assert curves is not None
    assert [tick.text for tick in curves.rungs] == ["3", "9"]
    tints = [strand.tint for strand in parallel.strands if not strand.is_winner]
    assert set(tints) == set(range(5))


def test_few_lines_of_many_keep_the_best(run: RunDirectory) -> None:
    history = read_run(run.path)
    chosen = choose_trials(history, 10)
    assert len({trial.number for trial in chosen}) == 10
    assert chosen[:5] == list(history.ranking[:5])
    assert all(0 in {t.number for t in choose_trials(history, most)} for most in range(2, 12))


def test_ticks_are_round_and_inside() -> None:
    assert marks_of(0, 27, 5) == [0, 10, 20]
    assert marks_of(0.2, 0.7, 5) == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert marks_of(3, 3, 5) == [3]
    assert log_marks(1e-5, 1e-1) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert log_marks(0.02, 0.2) == pytest.approx([0.02, 0.05, 0.1, 0.2])
    assert [number_text(v) for v in (0, 0.05, 1e-5, 128, 3e7)] == [
        "0",
        "0.05",
        "1e-5",
        "128",
        "3e7",
    ]
    whole = Axis(0, 100, 2, 4, is_whole=True)
    assert [tick.text for tick in whole.ticks(4)] == ["2", "3", "4"]
    assert Axis(0, 100, 1e-4, 1, is_log=True).at(1e-2) == 50
    assert Axis(100, 0, names=("a", "b")).at("b") == 25


# --- a real browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(run: RunDirectory, browser: Any, width: int, scheme: str) -> None:
    path = write_search_page(run.path)
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    faults: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert faults == []
    assert requests == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Nothing may stick out of its card but what can be scrolled there.
    sticking_out = page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter(e => {
          if (e.closest('.scroll, pre, svg')) return false;
          const box = e.getBoundingClientRect();
          return box.right > innerWidth + 0.5 || box.left < -0.5;
        }).map(e => e.tagName + '.' + e.className)"""
    )
    assert sticking_out == []
    for region in page.query_selector_all(".scroll"):
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label")
    for chart in page.query_selector_all("svg"):
        assert chart.get_attribute("aria-label")
    overlapping = page.evaluate(
        """() => [...document.querySelectorAll('svg')].flatMap(svg => {
          const texts = [...svg.querySelectorAll('text:not(.halo)')].map(
            t => [t.textContent, t.getBoundingClientRect()]).filter(([, b]) => b.width > 0);
          return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([, q]) =>
            p.left < q.right - 1 && q.left < p.right - 1 &&
            p.top < q.bottom - 1 && q.top < p.bottom - 1).map(([b]) => [a, b]));
        })"""
    )
    assert overlapping == []
    context.close()


def test_the_bundles_of_the_fixture_are_whole(run: RunDirectory) -> None:
    assert check_manifest(run.bundle(0))[0]
