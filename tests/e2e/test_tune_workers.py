"""`resources.per_trial.workers: 2`: real searches, each trial trained by two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fer_ray import api
from fer_ray.bundle.load import load_bundle

REPOSITORY = Path(__file__).parents[2]


def search(folder: Path, kind: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers_search", str(folder), kind],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
def test_a_trial_that_asha_stops_leaves_no_place_taken(tmp_path: Path) -> None:
    found = search(tmp_path, "search")
    history = api.open_run(tmp_path / "run")
    assert [(t.state, t.epoch) for t in history.trials] == [("complete", 3), ("pruned", 1)]
    assert history.trials[0].best > history.trials[1].best
    assert found["after"] == [], "every placement group is gone"
    assert load_bundle(tmp_path / "run" / "best").id == history.trials[0].bundle_id
    assert not list(tmp_path.glob("run/trials/*/checkpoint.safetensors"))


@pytest.mark.long
def test_a_stopped_search_of_several_workers_goes_on_where_it_was(tmp_path: Path) -> None:
    found = search(tmp_path, "resume")
    assert "stopped as asked" in found["stopped"]
    assert found["left"] == found["after"] == []
    history = api.open_run(tmp_path / "run")
    first, second = history.trials
    assert (first.state, second.state) == ("complete", "pruned")
    assert len(first.attempts) == 2
    assert [row["epoch"] for row in first.curve] == list(range(1, 61)), "no epoch twice, none lost"
    times = [row["time"] for row in first.curve]
    again = next(i for i, at in enumerate(times) if at > first.attempts[1].started)
    assert again > 0, "what was trained before the stop was not trained again"
