"""The doctor on a cluster that is ill: two nodes, two disks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fer_ray.cluster import nodes
from fer_ray.doctor.examine import examine
from fer_ray.errors import UserError
from fer_ray.ray_session import ray_session


def _may_unshare() -> bool:
    command = ["unshare", "-m", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0
    )


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    running = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False},
    )
    yield running
    running.shutdown()


def test_a_node_with_another_fer_ray_is_refused_before_any_work(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node answers what it runs; it is this process that claims to run another one."""
    mine = nodes.own_versions()
    with ray_session(address=cluster.address):
        assert len(nodes.nodes_alive()) == 1, "the same versions are let in"
    monkeypatch.setattr(nodes, "own_versions", lambda: replace(mine, fer_ray="9.9"))
    with pytest.raises(UserError) as caught, ray_session(address=cluster.address):
        raise AssertionError("work begins")
    assert "1 of 1 nodes do not run what this process runs (fer-ray 9.9" in caught.value.message
    assert f"has fer-ray {mine.fer_ray}" in caught.value.message


@pytest.mark.skipif(not _may_unshare(), reason="needs the right to unshare mounts")
def test_a_node_with_another_disk_and_little_shared_memory(cluster: Any, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    join = f"ray start --address={cluster.address} --num-cpus=1 --num-gpus=0 --block"
    mounts = f"mount -t tmpfs none {shared} && mount -t tmpfs -o size=200m none /dev/shm"
    store = "--object-store-memory=100000000"
    ray = Path(sys.executable).with_name("ray")
    node = subprocess.Popen(
        ["unshare", "-m", "bash", "-c", f"{mounts} && exec {ray.parent}/{join} {store}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        found = examine(cluster.address, shared)
        until = time.monotonic() + 60
        while len(found.nodes) < 2 and time.monotonic() < until:
            found = examine(cluster.address, shared)
    finally:
        node.terminate()
        node.wait(timeout=60)
    assert len(found.nodes) == 2, "both were asked"
    assert [entry["head"] for entry in found.nodes] == [True, False]
    disk = [fault for fault in found.faults if "1 of 2 nodes do not see" in fault.what]
    assert len(disk) == 1
    assert "all nodes share" in disk[0].remedy
    memory = [fault for fault in found.faults if "shared memory has 0.21 GB" in fault.what]
    assert len(memory) == 1
    assert memory[0].what.startswith("on ")
    assert list(shared.iterdir()) == [], "nothing is left behind"
