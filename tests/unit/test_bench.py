"""`make bench`: knows every benchmark, and its page shows what moved."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import ROOT, load_script

HELPERS = {"train_variants", "serve_rivals"}
"""Started by the benchmarks themselves."""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script("tools/bench.py")


def test_every_benchmark_is_run(bench: ModuleType) -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert {benchmark.script for benchmark in bench.BENCHMARKS} == scripts - HELPERS


def test_the_page_shows_ratios_beside_those_of_before_and_marks_what_moved(
    bench: ModuleType,
) -> None:
    benchmark = bench.Benchmark("train", ("--repeats", "3"))
    ratios = {"engine / bare": 0.98, "engine / loader": 1.2}
    outcome = bench.Outcome(benchmark, "python benchmarks/train.py", 61.0, "rates", ratios, False)
    page = bench.page_of([outcome], {"train": {"engine / bare": 0.97, "engine / loader": 1.8}})
    assert "| engine / bare | 0.98 | 0.97 |  |" in page
    assert "| engine / loader | 1.20 | 1.80 | **look** |" in page
    assert "```\nrates\n```" in page
    assert "torch " in page


def test_a_benchmark_that_fails_is_said_and_the_others_go_on(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "bad.py").write_text("print('so far'); raise SystemExit(3)")
    (tmp_path / "benchmarks" / "good.py").write_text("print('9 a second'); print('{\"r\": 2.0}')")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(bench, "KEPT", tmp_path / "benchmarks" / "results" / "ratios.json")
    both = (bench.Benchmark("bad"), bench.Benchmark("good", (), lambda document: dict(document)))
    monkeypatch.setattr(bench, "BENCHMARKS", both)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--keep"])
    with pytest.raises(SystemExit, match="1"):
        bench.main()
    (page,) = (tmp_path / "benchmarks" / "results").glob("*.md")
    text = page.read_text()
    assert "**It failed.**" in text
    assert "so far" in text
    assert "| r | 2.00 |" in text
    assert json.loads(bench.KEPT.read_text()) == {"good": {"r": 2.0}}
    assert "9 a second" in capsys.readouterr().out
