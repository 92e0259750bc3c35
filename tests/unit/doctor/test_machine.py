"""The doctor's look at one machine: facts that are true, faults that are provoked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fer_ray.doctor import machine as doctor_machine
from fer_ray.doctor.examine import examine
from fer_ray.doctor.findings import Diagnosis, Fault
from fer_ray.doctor.limits import limits_of
from fer_ray.doctor.machine import GB, Machine, Places, faults_of, look, unmet


@pytest.fixture(scope="module")
def healthy() -> Machine:
    """This machine's facts, with room where it may lack some."""
    return replace(look(), shm_gb=2.0, memory_free_gb=8.0, disk_used_frac=0.5, prefix="/opt/env")


def test_the_facts_of_this_machine() -> None:
    import torch

    found = look()
    assert 0 < found.cores <= len(os.sched_getaffinity(0))
    assert found.processor == torch.backends.cpu.get_cpu_capability()
    assert found.memory_gb is not None
    assert found.memory_free_gb is not None
    assert 0 < found.memory_free_gb <= found.memory_gb
    assert found.precision in ("bf16", "fp32")
    assert found.versions["torch"] == torch.__version__
    assert len(found.gpus) == torch.cuda.device_count()


def test_a_container_s_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2 * GB}\n")
    (tmp_path / "memory.current").write_text(f"{GB // 2}\n")
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {64 * GB // 1024} kB\nMemAvailable: {60 * GB // 1024} kB\n")
    found = look(Places(cgroup=tmp_path, meminfo=meminfo))
    assert (found.cores, found.memory_gb, found.memory_free_gb) == (0.5, 2.0, 1.5)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    found = look(Places(cgroup=tmp_path, meminfo=meminfo))
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_free_gb == 60.0


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        ({"shm_gb": 0.06}, "shared memory has 0.06 GB", "--shm-size"),
        ({"memory_free_gb": 0.3}, "0.3 GB of memory are free", "larger machine"),
        ({"disk_used_frac": 0.97}, "97 % full", "TMPDIR"),
        ({"prefix": "/home/a b/env"}, "'/home/a b/env'", "without spaces"),
    ],
)
def test_each_fault_has_its_remedy(
    healthy: Machine, change: dict[str, object], what: str, remedy: str
) -> None:
    assert faults_of(healthy) == []
    (fault,) = faults_of(replace(healthy, **change))  # type: ignore[arg-type]
    assert what in fault.what
    assert remedy in fault.remedy


def test_packages_are_compared_with_what_fer_ray_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["ray>=2.60,<2.61", "no-such-package>=1", "torch<1", 'gone>=1; extra == "openvino"']
    monkeypatch.setattr(doctor_machine.metadata, "requires", lambda name: wanted)
    missing, torch = unmet("")
    assert missing.startswith("no-such-package (>=1)")
    assert torch.startswith("torch<1, but 2.")
    assert unmet("openvino") == ["gone (>=1), which is not installed"]
    assert "openvino" not in look().extras
    assert [fault.what for fault in doctor_machine.faulty_packages()] == [
        f"fer-ray wants {text}" for text in (missing, torch)
    ]


def test_limits_follow_from_the_facts(healthy: Machine) -> None:
    small = replace(healthy, cores=4.0, precision="fp32", extras=(), gpus=())
    text = "\n".join(limits_of(small, []))
    assert "4 trials at once" in text
    assert "fp32" in text
    assert "fer-ray[openvino] is not installed" in text
    large = replace(small, gpus=("H 80 GB", "H 80 GB"), cores=32.0, precision="bf16")
    text = "\n".join(limits_of(large, []))
    assert "2 trials at once, one on each of 2 GPUs" in text
    assert "4 actors" in text


def test_what_people_read(healthy: Machine) -> None:
    fault = Fault("the disk is full", "Make room.")
    nodes = ({"node": "host-1 (00000001)", "head": True, "resources": {"CPU": 4.0}, "gpus": ()},)
    lines = Diagnosis(healthy.as_dict(), nodes, (fault,), ("search: 4 trials at once",)).lines()
    assert f"precision: {healthy.precision}" in lines
    assert "node host-1 (00000001): head yes, resources CPU 4, gpus none" in lines
    assert "limit: search: 4 trials at once" in lines
    assert lines[-3:] == ["fault: the disk is full", "  Make room.", "1 fault(s)"]
    well = Diagnosis(healthy.as_dict(), (), (), ())
    assert well.lines()[-1] == "nothing is wrong"
    assert well.as_dict()["ok"] is True


def test_storage_that_cannot_be_written(tmp_path: Path) -> None:
    found = examine(None, tmp_path / "missing")
    assert any(str(tmp_path / "missing") in fault.what for fault in found.faults)
    assert not any("written" in fault.what for fault in examine(None, tmp_path).faults)
    assert list(tmp_path.iterdir()) == []


def _may_unshare() -> bool:
    command = ["unshare", "-m", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0
    )


@pytest.mark.skipif(not _may_unshare(), reason="needs the right to unshare mounts")
def test_docker_s_64_mb_of_shared_memory_through_the_command_line() -> None:
    """The container's default, really mounted, over this process's own /dev/shm."""
    run = f"mount -t tmpfs -o size=64m none /dev/shm && exec {sys.executable} -m fer_ray doctor"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", f"{run} --json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert found["machine"]["shm_gb"] == 0.07
    (fault,) = [f for f in found["faults"] if "shared memory" in f["what"]]
    assert "--shm-size=2g" in fault["remedy"]
