"""The examples run, the notebook's cells in their order."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from fer_ray.bundle.load import load_bundle
from tests.scripts import ROOT, load_script


@pytest.mark.usefixtures("ray_session")
def test_the_whole_path_and_the_notebook_about_its_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_script("examples/whole_path.py").main(Path("runs/example"))
    told = capsys.readouterr().out
    assert "quickstart: " in told
    assert "200 rows in " in told
    assert len(pd.read_parquet("runs/example/scores")) == 200

    names: dict[str, object] = {}
    notebook = json.loads(
        (ROOT / "examples" / "reading_a_search.ipynb").read_text(encoding="utf-8")
    )
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    for cell in cells:
        exec(cell, names)
    trials = names["trials"]
    assert isinstance(trials, pd.DataFrame)
    assert len(trials) == 6
    curves = names["curves"]
    assert isinstance(curves, pd.DataFrame)
    assert set(curves["trial"]) <= set(range(6))
    best = trials.sort_values("value").iloc[-1]
    assert load_bundle(Path("runs/example/run/best")).id == best["bundle_id"]
