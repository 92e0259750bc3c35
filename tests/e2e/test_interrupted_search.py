"""A search through the command line, killed and interrupted: the short form of tests/faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults import runs

TRIALS = 4


def test_a_killed_driver_and_ctrl_c_lose_nothing(tmp_path: Path) -> None:
    space, out, log = tmp_path / "faults.yaml", tmp_path / "run", tmp_path / "epochs.log"
    space.write_text(runs.SPACE.replace(f"trials: {runs.NUM_TRIALS}", f"trials: {TRIALS}"))
    env = runs.environment(log)
    code, text = runs.run("rename", 14, "tune", space, "--out", out, env=env)
    assert code == -signal.SIGKILL, text
    runs.check_best(out)

    slow = {**env, "FAULT_EPOCH_PAUSE_S": "2"}
    while runs.processes_training(log):  # a killed driver's processes end a moment after it
        time.sleep(0.2)
    before = runs.epochs_trained(log).total()
    process = runs.start("rename", 0, "resume", out, env=slow)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and runs.epochs_trained(log).total() <= before:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert f"fer-ray resume {out}" in text
    assert "stopping after the epochs under way" in text
    trained = runs.epochs_trained(log)

    left = [t for t in runs.trials_of(out) if not t.state.is_finished()]
    assert left
    code, text = runs.run("rename", 0, "resume", out, env=env)
    assert code == 0, text
    runs.check_whole(out, log, TRIALS)
    again = runs.epochs_trained(log)
    for trial in left:
        seed = trial.user_attrs["seed"]
        done = len(trial.user_attrs["curve"])
        redone = [e for e in range(1, done + 1) if again[seed, e] != trained[seed, e]]
        assert not redone, "an interrupted trial goes on from its checkpoint"


def test_resume_says_what_it_cannot_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fer_ray", "resume", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "is not a run" in result.stderr
