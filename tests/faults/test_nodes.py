"""Worker nodes: one that is killed in mid-search, and one that sees another disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fer_ray.cluster.object_folder import ObjectFolder
from tests.faults import runs
from tests.object_storage import s3_server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A head of one CPU; the tests add nodes."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(runs.environment(tmp_path / "epochs.log", FAULT_EPOCH_PAUSE_S="1.5"))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False},
    )
    yield cluster
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


def test_a_worker_node_killed_in_mid_search(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, num_gpus=0)
    space, out, log = tmp_path / "faults.yaml", tmp_path / "run", tmp_path / "epochs.log"
    space.write_text(runs.SPACE)
    env = runs.environment(log, RAY_ADDRESS=cluster.address)
    process = runs.start("rename", 0, "tune", space, "--out", out, env=env)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and runs.processes_training(log) < 2:
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    runs.check_whole(out, log)
    attempts = [t.user_attrs["attempts"] for t in runs.trials_of(out)]
    assert any(len(found) > 1 for found in attempts), "a trial was started again elsewhere"
    assert all(found[-1]["ended"] is not None for found in attempts)


def _may_unshare() -> bool:
    command = ["unshare", "-m", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0
    )


@contextlib.contextmanager
def node_with_its_own_disk(cluster: Any, folder: Path) -> Iterator[None]:
    """A second node, of one CPU, that sees an empty disk where the others see `folder`."""
    ray = Path(sys.executable).with_name("ray")
    join = f"{ray} start --address={cluster.address} --num-cpus=1 --num-gpus=0 --block"
    node = subprocess.Popen(
        ["unshare", "-m", "bash", "-c", f"mount -t tmpfs none {folder} && exec {join}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and _num_nodes(cluster) < 2:
            time.sleep(0.5)
        yield
    finally:
        node.terminate()
        node.wait(timeout=60)


@pytest.mark.skipif(not _may_unshare(), reason="needs the right to unshare mounts")
def test_two_nodes_with_separate_disks_are_refused(cluster: Any, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    space, out = tmp_path / "faults.yaml", shared / "run"
    space.write_text(runs.SPACE)
    with node_with_its_own_disk(cluster, shared):
        env = runs.environment(tmp_path / "epochs.log", RAY_ADDRESS=cluster.address)
        code, text = runs.run("rename", 0, "tune", space, "--out", out, env=env)
    assert code == 2, text
    assert "1 of 2 nodes do not see" in text
    assert "directory that all nodes share" in text
    assert not out.exists(), "nothing was begun"
    assert not list(shared.iterdir()), "the probe is gone"


@pytest.mark.skipif(not _may_unshare(), reason="needs the right to unshare mounts")
def test_two_nodes_with_separate_disks_search_into_object_storage(
    cluster: Any, tmp_path: Path
) -> None:
    disk, log = tmp_path / "disk", tmp_path / "epochs.log"
    disk.mkdir()
    space = tmp_path / "faults.yaml"
    space.write_text(runs.SPACE)
    with s3_server(), node_with_its_own_disk(cluster, disk):
        place = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").replace(":", "%3A")
        out = f"s3://key:secret@bucket/run?scheme=http&endpoint_override={place}"
        env = runs.environment(
            log, RAY_ADDRESS=cluster.address, XDG_CACHE_HOME=str(disk), TMPDIR=str(disk)
        )
        code, text = runs.run("rename", 0, "tune", space, "--out", out, env=env)
        assert code == 0, text
        assert "secret" not in text
        shutil.rmtree(disk / "fer-ray")
        run = ObjectFolder(out)
        copy = tmp_path / "copy"
        for name in run.names():
            run.fetch(name, copy / name)
    assert runs.processes_that_trained(log) >= 2, "both nodes trained"
    assert "secret" not in (copy / "run.json").read_text()
    best = json.loads((copy / "best.json").read_text())["bundle"]
    (copy / "best").symlink_to(best)
    runs.check_whole(copy, log)


def _num_nodes(cluster: Any) -> int:
    from ray._private.state import GlobalState
    from ray._raylet import GcsClientOptions

    state = GlobalState()
    options = GcsClientOptions.create(
        cluster.address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    state._initialize_global_state(options)
    return sum(node["Alive"] for node in state.node_table())
