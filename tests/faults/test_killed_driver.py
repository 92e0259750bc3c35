"""A driver killed at a rename, a flush or a commit of its own, or at any time: resume mends it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import runs

SHORT = [("rename", 12), ("commit", 20)]
LONG = [
    *[("rename", n) for n in (1, 2, 3, 5, 8, 11, 15, 19, 25, 31)],
    *[("fsync", n) for n in (3, 6, 9, 16, 24, 33, 38, 43)],
    *[("commit", n) for n in (1, 3, 6, 9, 13, 16, 24, 31, 38)],
]
"""A search of this size makes some 34 renames, 49 flushes and 49 commits."""
UNTOLD = 2 * (runs.EPOCHS - 1)
"""Two slots; a driver that dies may have heard of the first epoch alone."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "epochs.log"


@pytest.fixture(scope="module")
def address(log: Path) -> Iterator[str]:
    """A Ray that outlives the killed drivers: one for each would take most of the time."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(runs.environment(log))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "num_gpus": 0, "include_dashboard": False},
    )
    yield cluster.address
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def setting(tmp_path: Path, log: Path, address: str) -> dict[str, Any]:
    log.unlink(missing_ok=True)
    space = tmp_path / "faults.yaml"
    space.write_text(runs.SPACE)
    env = runs.environment(log, RAY_ADDRESS=address)
    return {"space": space, "out": tmp_path / "run", "log": log, "env": env}


def resume_and_check(setting: dict[str, Any]) -> None:
    """Go on with what a kill left, and look at everything."""
    out, log, env = setting["out"], setting["log"], setting["env"]
    if not (out / "run.json").exists():
        code, text = runs.run("rename", 0, "tune", setting["space"], "--out", out, env=env)
        assert code == 0, text
        runs.check_whole(out, log, num_untold=UNTOLD)
        return
    runs.check_best(out)
    finished = runs.finished_in(out)
    before = runs.epochs_trained(log)
    code, text = runs.run("rename", 0, "resume", out, env=env)
    assert code == 0, text
    runs.check_whole(out, log, num_untold=UNTOLD)
    counts = runs.epochs_trained(log)
    for number, (seed, epochs) in finished.items():
        again = {e: counts[seed, e] - before[seed, e] for e in range(1, epochs + 1)}
        assert not any(again.values()), f"trial {number} had ended and was trained again"
    # Two slots; each lost at most what it had trained since its last checkpoint.
    assert sum(counts.values()) - len(counts) <= 2 * runs.EPOCHS


@pytest.mark.parametrize(
    ("kind", "at"),
    [*SHORT, *(pytest.param(*point, marks=pytest.mark.long) for point in LONG)],
)
def test_killed_at_an_operation(kind: str, at: int, setting: dict[str, Any]) -> None:
    words = ("tune", setting["space"], "--out", setting["out"])
    code, text = runs.run(kind, at, *words, env=setting["env"])
    assert code == -signal.SIGKILL, text
    resume_and_check(setting)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_time(seed: int, setting: dict[str, Any]) -> None:
    generator = random.Random(seed)
    words = ("tune", setting["space"], "--out", setting["out"])
    process = runs.start("rename", 0, *words, env=setting["env"])
    started = time.monotonic()
    while not (setting["out"] / "study.db").exists() and time.monotonic() - started < 120:
        time.sleep(0.05)
    time.sleep(generator.uniform(0.0, 8.0))
    process.kill()
    process.communicate()
    resume_and_check(setting)
