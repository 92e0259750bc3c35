"""`fer-ray status`: on a search that runs, has ended, was killed, and was never told of."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fer_ray.cli.main import app
from fer_ray.errors import UserError
from fer_ray.runs import RunDirectory
from fer_ray.search.history import RungVisit
from fer_ray.search.reading import read_run
from fer_ray.search.watching import clock, sparkline, status_of, visit_text, why_of
from fer_ray.store import read_json, write_json
from tests.searches import STARTED, pretend_search


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return pretend_search(tmp_path_factory.mktemp("ended") / "run", trials=30, slots=3)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Left by its driver after a minute and a half."""
    path = tmp_path_factory.mktemp("cut") / "run"
    return pretend_search(path, trials=30, slots=3, until_s=90.0)


@contextlib.contextmanager
def driver_of(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run's lock, as a driver does."""
    code = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)"
    )
    lock = run.path / ".lock"
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
    lock.unlink()


def test_a_search_that_has_ended(ended: RunDirectory) -> None:
    history = read_run(ended.path)
    status = status_of(history)
    assert status.state == "ended"
    assert status.wanted == sum(status.ended.values()) == 30
    assert status.rejected == 1
    assert status.eta_s is None
    assert status.epochs == sum(len(trial.curve) for trial in history.trained)
    assert [row["trial"] for row in status.failed] == [5]
    best = max(t.best for t in history.trained if t.has_value)
    assert status.best[0]["value"] == best
    text = "\n".join(status.lines())
    assert "30 of 30 trials ended" in text
    assert "1 rejected" in text
    assert "out of memory" in text
    assert "resume" not in text


def test_a_driver_that_lives_and_dies(cut: RunDirectory) -> None:
    with driver_of(cut) as driver:
        status = status_of(read_run(cut.path), now=STARTED + 95)
        assert status.state == "running"
        assert "its driver lives" in status.evidence
        assert len(status.running) == 3
        done = sum(status.ended.values())
        assert status.eta_s == pytest.approx(95 / done * (30 - done), rel=0.01)
        assert "about" in "\n".join(status.lines())
        driver.kill()
        driver.wait()
        status = status_of(read_run(cut.path), now=STARTED + 95)
        assert status.state == "killed"
        assert status.lines()[-1] == f"go on with: fer-ray resume {cut.path}"
        assert status.elapsed_s is not None
        assert status.elapsed_s < 90


@pytest.mark.parametrize(("silent_s", "state"), [(10, "running"), (3600, "unknown")])
def test_without_a_lock_the_last_sign_counts(
    cut: RunDirectory, silent_s: float, state: str
) -> None:
    status = status_of(read_run(cut.path), now=STARTED + 90 + silent_s)
    assert status.state == state
    assert "not recorded" in status.evidence


@pytest.mark.parametrize(
    ("how", "state"), [("interrupted", "stopped"), (None, "unknown"), ("finished", "ended")]
)
def test_sessions_say_how_a_search_ended(
    cut: RunDirectory, ended: RunDirectory, tmp_path: Path, how: str | None, state: str
) -> None:
    run = ended if how == "finished" else cut
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    session = {"started": STARTED, "ended": STARTED + 95 if how else None, "how": how, "slots": 3}
    with sqlite3.connect(path / "study.db") as database:
        database.execute(
            "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, ?)",
            ("sessions", json.dumps([session])),
        )
    database.close()
    status = status_of(read_run(path))
    assert status.state == state
    assert (how or "probably killed") in status.evidence
    assert ("resume" in status.lines()[-1]) == (state != "ended")


def test_the_time_budget_bounds_what_is_left(tmp_path: Path) -> None:
    run = pretend_search(tmp_path / "run", trials=30, slots=3, until_s=90.0)
    document = read_json(run.path / "run.json")
    document["command"] += ["-s", "stop.time_budget=100s"]
    write_json(run.path / "run.json", document)
    status = status_of(read_run(run.path), now=STARTED + 95)
    assert status.eta_s == pytest.approx(5, abs=0.5)


# --- why ------------------------------------------------------------------------------------------


def test_why_a_pruned_trial_was_stopped(ended: RunDirectory) -> None:
    history = read_run(ended.path)
    pruned = next(t for t in history.trained if t.ended == "pruned")
    why = why_of(history, pruned.number)
    visit = pruned.visits[-1]
    assert visit.value is not None
    assert visit.threshold is not None
    assert f"stopped by ASHA at rung {visit.rung}" in why.verdict
    assert f"{visit.threshold - visit.value:.4f} short" in why.verdict
    first = history.trial(0)
    for address, ours, its in why.changes:
        assert first.params.get(address) == ours
        assert pruned.params.get(address) == its
        assert ours != its
    unchanged = set(pruned.params) - {address for address, _, _ in why.changes}
    assert all(first.params[address] == pruned.params[address] for address in unchanged)
    document = json.loads(json.dumps(why.as_dict()))
    assert len(document["curve"]) == pruned.epoch
    assert document["rungs"][-1]["stop"] is True


def test_every_end_has_its_words(ended: RunDirectory, cut: RunDirectory) -> None:
    history = read_run(ended.path)
    words = {
        "complete": "trained to its last epoch, 27",
        "pruned": "stopped by ASHA",
        "diverged": "left the finite numbers",
        "failed": "RuntimeError: <b>out of memory</b>",
    }
    seen = set()
    for trial in history.trained:
        verdict = why_of(history, trial.number).verdict
        assert words[str(trial.ended)] in verdict
        seen.add(trial.ended)
    assert seen == set(words)
    assert "31,000,000" in why_of(history, 30).verdict
    running = next(t for t in read_run(cut.path).trained if t.state == "running")
    assert "running" in why_of(read_run(cut.path), running.number).verdict
    assert "trial 0, the space's defaults" in "\n".join(why_of(history, 0).lines())


def test_an_unknown_trial_is_refused(ended: RunDirectory) -> None:
    with pytest.raises(UserError, match="no trial 99; its trials are 0 to 30"):
        why_of(read_run(ended.path), 99)


def test_what_is_not_recorded_is_said() -> None:
    text = visit_text(RungVisit(3, 2, 4, True, 0.5))
    assert "not recorded" in text
    assert text.endswith("stopped")


def test_trial_0_goes_on_below_the_threshold() -> None:
    text = visit_text(RungVisit(3, 4, 4, False, 0.5, 0.6))
    assert "0.1000 short, yet never stopped" in text


# --- the command ----------------------------------------------------------------------------------


def test_the_command(ended: RunDirectory) -> None:
    runner = CliRunner()
    plain = runner.invoke(app, ["status", str(ended.path)])
    assert plain.exit_code == 0, plain.output
    assert "30 of 30 trials ended" in plain.stdout
    as_json = runner.invoke(app, ["status", str(ended.path), "--json"])
    assert json.loads(as_json.stdout)["state"] == "ended"
    why = runner.invoke(app, ["status", str(ended.path), "--why", "0"])
    assert re.search(r"curve +\S{27} ", why.stdout)
    one = runner.invoke(app, ["status", str(ended.path), "--why", "0", "--json"])
    assert json.loads(one.stdout)["ended"] == "complete"


def test_pickles_in_the_run_are_never_executed(tmp_path: Path) -> None:
    run = pretend_search(tmp_path / "run", trials=3)
    trap = tmp_path / "sprung"
    payload = f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode()
    names = ["ray/tune/tuner.pkl", "ray/tune/searcher-state.pkl", "trials/0/checkpoint.pkl"]
    for name in [*names, "study.pkl", "trials/0/checkpoint.safetensors"]:
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(payload)
    for verb in ("status", "report"):
        done = CliRunner().invoke(app, [verb, str(run.path)])
        assert done.exit_code == 0, done.output
    assert not trap.exists()
    import pickle

    pickle.loads(payload)  # noqa: S301
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0, 0.5, 1.0], "\u2581\u2585\u2588"),
        ([0.3, 0.3], "\u2581\u2581"),
        ([float(v) for v in range(100)], None),
    ],
)
def test_sparklines(values: list[float], text: str | None) -> None:
    line = sparkline(values)
    assert line == text if text else (len(line) == 40 and line[0] < line[-1])
    assert sparkline(values, unicode=False).isascii()


def test_clock() -> None:
    assert [clock(s) for s in (12, 600, 12_000, 1e6)] == ["12 s", "10 min", "3 h 20 min", "11 days"]
    assert math.isclose(float(clock(89).split()[0]), 89)
