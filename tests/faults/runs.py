"""What the fault tests share: a small search, its drivers, and what must hold."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer_ray.bundle.load import load_bundle
from fer_ray.search.asha import JudgedTrial, replay

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
NUM_TRIALS = 6
EPOCHS = 4
SPACE = f"""\
version: 1
name: faults
data: {{source: sample, image_size: 24, crop: 20}}
model:
  cnn: {{channels: [4, 8], convs_per_block: 1, head_dropout: {{float: [0.0, 0.4]}}}}
train:
  epochs: {EPOCHS}
  batch_size: {{choice: [250, 500]}}
  optimizer: {{sgd: {{lr: {{log: [1.0e-3, 1.0e-1]}}}}}}
  schedule: {{cosine: {{warmup_epochs: 0}}}}
search: {{trials: {NUM_TRIALS}, seed: 3}}
scheduler: {{asha: {{grace_epochs: 1, reduction: 2}}}}
keep: {{top: 2}}
"""


def environment(log: Path, **more: str) -> dict[str, str]:
    """Of a driver or a cluster under test."""
    path = os.pathsep.join([str(HERE / "site"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    own = {
        "PYTHONPATH": path,
        "FAULT_EPOCH_LOG": str(log),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return {**os.environ, **own, **more}


def start(kind: str, at: int, *words: str | Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start the command line, to be killed at the Nth operation of a kind; 0 is never."""
    command = [sys.executable, str(HERE / "driver.py"), kind, str(at), *map(str, words)]
    return subprocess.Popen(
        command,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(kind: str, at: int, *words: str | Path, env: dict[str, str]) -> tuple[int, str]:
    """`start`, and wait; gives the exit code and all that was printed."""
    process = start(kind, at, *words, env=env)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def trials_of(path: Path) -> list[FrozenTrial]:
    """Trained trials, as another process reads them."""
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path / 'study.db'}")
    return [t for t in study.trials if not t.user_attrs.get("rejected")]


def finished_in(path: Path) -> dict[int, tuple[int, int]]:
    """Seed and epochs of the trials that have ended, by number."""
    if not (path / "study.db").is_file():
        return {}
    try:
        trials = trials_of(path)
    except (KeyError, ValueError, optuna.exceptions.StorageInternalError):
        return {}
    return {
        t.number: (t.user_attrs["seed"], len(t.user_attrs["curve"]))
        for t in trials
        if t.state.is_finished()
    }


def epochs_trained(log: Path) -> Counter[tuple[int, int]]:
    """How often each (seed, epoch) was trained, by any process."""
    lines = log.read_text().splitlines() if log.is_file() else []
    return Counter((int(line.split()[0]), int(line.split()[1])) for line in lines)


def processes_training(log: Path) -> int:
    """How many processes have trained an epoch within the last seconds."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.is_file() else []
    return len({line[2] for line in lines if time.time() - float(line[3]) < 3.0})


def processes_that_trained(log: Path) -> int:
    """How many processes have trained an epoch."""
    return len({line.split()[2] for line in log.read_text().splitlines()})


def check_best(path: Path) -> None:
    """`best` is absent, or a bundle that loads and gives its golden answers."""
    if (path / "best").is_symlink():
        load_bundle(path / "best")


def check_whole(
    path: Path, log: Path, num_trials: int = NUM_TRIALS, *, num_untold: int = 0
) -> None:
    """A run that was killed and resumed is what one that was left alone would be.

    Args:
        path: the run.
        log: which epochs were trained.
        num_trials: that the search was to have.
        num_untold: epochs that a killed driver may not have heard of: where a rung is judged anew
            without them, their trial may stop before.
    """
    trials = trials_of(path)
    assert [t.number for t in trials] == list(range(num_trials)), "the exact number of trials"
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials), [
        (t.number, t.state, t.user_attrs.get("error")) for t in trials
    ]
    points = [tuple(sorted(t.params.items())) for t in trials]
    assert len(set(points)) == num_trials, "no parameters twice"
    judged = [JudgedTrial(t.number, t.user_attrs["curve"], t.user_attrs["rungs"]) for t in trials]
    compared, faults = replay(judged, (1, 2), 2, {0}, sign=1.0)
    assert compared
    assert not faults
    counts = epochs_trained(log)
    for trial in trials:
        curve = trial.user_attrs["curve"]
        assert [row["epoch"] for row in curve] == list(range(1, len(curve) + 1))
        trained = {epoch for seed, epoch in counts if seed == trial.user_attrs["seed"]}
        told = set(range(1, len(curve) + 1))
        assert told <= trained, f"trial {trial.number}: every epoch was trained"
        num_untold -= len(trained - told)
        assert num_untold >= 0, f"trial {trial.number}: epochs {trained - told} are not told"
        assert trial.value == max(row["objective"] for row in curve)
        assert (trial.state == TrialState.COMPLETE) == (len(curve) == EPOCHS)
    check_best(path)
    best = max(trials, key=lambda t: (t.value, -t.number))
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert complete
    if best in complete:
        assert (path / "best").resolve().name == str(best.number)
    assert not list(path.glob("trials/*/checkpoint.safetensors"))
