"""This machine: what it has, and what of it is too little. Runs on every node of a cluster too."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fer_ray.doctor.findings import Fault

GB = 1_000_000_000
LEAST_SHM_GB = 1.0
"""Ray's object store lies in shared memory: a training set of 48-pixel faces takes a tenth of it. A
container's default of 64 MB makes Ray fall back to a file on the disk."""
LEAST_MEMORY_GB = 1.0
"""Ray's own processes take about half of it."""
FULL = 0.95
"""Ray writes no more objects to a disk that is fuller (`local_fs_capacity_threshold`)."""
EXTRAS = ("openvino", "onnx", "faces")


@dataclass(frozen=True)
class Places:
    """Where to look; tests look elsewhere.

    Attributes:
        shm: shared memory.
        temporary: the disk of Ray's sessions.
        cgroup: limits of a container.
        meminfo: the kernel's account of the memory.
    """

    shm: Path = Path("/dev/shm")
    temporary: Path = Path(tempfile.gettempdir())
    cgroup: Path = Path("/sys/fs/cgroup")
    meminfo: Path = Path("/proc/meminfo")


@dataclass(frozen=True)
class Machine:
    """A machine's facts.

    Attributes:
        system: kernel and architecture.
        cores: that this process may use, a container's quota counted.
        processor: the instruction set that torch computes with.
        memory_gb, memory_free_gb: a container's limit counted.
        shm_gb: of shared memory; None where there is none.
        disk_free_gb, disk_used_frac: of the disk that Ray's sessions lie on.
        gpus: name and memory of each.
        device, precision: what `device: auto` and `precision: auto` become here.
        versions: of fer-ray, Ray, torch, Optuna and Python.
        extras: of fer-ray, those whose packages are all there.
        prefix: of this Python.
    """

    system: str
    cores: float
    processor: str
    memory_gb: float | None
    memory_free_gb: float | None
    shm_gb: float | None
    disk_free_gb: float
    disk_used_frac: float
    gpus: tuple[str, ...]
    device: str
    precision: str
    versions: dict[str, str]
    extras: tuple[str, ...]
    prefix: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(places: Places | None = None) -> Machine:
    """Gather the facts; about a second, most of it the import of torch."""
    import torch

    from fer_ray.models.inference import resolve_device, resolve_precision

    places = places or Places()
    device = resolve_device("auto")
    memory, free = _memory(places)
    disk = shutil.disk_usage(places.temporary)
    gpus = tuple(
        f"{torch.cuda.get_device_name(n)} "
        f"{torch.cuda.get_device_properties(n).total_memory / GB:.0f} GB"
        for n in range(torch.cuda.device_count())
    )
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cores=_cores(places),
        processor=torch.backends.cpu.get_cpu_capability(),
        memory_gb=memory,
        memory_free_gb=free,
        shm_gb=_shm(places),
        disk_free_gb=round(disk.free / GB, 1),
        disk_used_frac=round(1 - disk.free / disk.total, 3) if disk.total else 1.0,
        gpus=gpus,
        device=device.type,
        precision=resolve_precision("auto", device),
        versions={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("fer-ray", "ray", "torch", "optuna")},
        },
        extras=tuple(extra for extra in EXTRAS if not unmet(extra)),
        prefix=sys.prefix,
    )


def faults_of(machine: Machine) -> list[Fault]:
    """What of a machine's facts is wrong."""
    faults = []
    if machine.shm_gb is not None and machine.shm_gb < LEAST_SHM_GB:
        faults.append(
            Fault(
                f"shared memory has {machine.shm_gb:g} GB, Ray wants {LEAST_SHM_GB:g}: its objects "
                "would lie in a file on the disk",
                "Give it more: docker run --shm-size=2g, or a memory volume at /dev/shm.",
            )
        )
    if machine.memory_free_gb is not None and machine.memory_free_gb < LEAST_MEMORY_GB:
        faults.append(
            Fault(
                f"{machine.memory_free_gb:g} GB of memory are free, below {LEAST_MEMORY_GB:g}",
                "End what takes it, or use a larger machine.",
            )
        )
    if machine.disk_used_frac >= FULL:
        faults.append(
            Fault(
                f"the disk of {tempfile.gettempdir()} is {100 * machine.disk_used_frac:.0f} % "
                f"full: Ray stores nothing there above {100 * FULL:.0f} %",
                "Make room, or point TMPDIR and RAY_TMPDIR at another disk.",
            )
        )
    if re.search(r"\s", machine.prefix):
        faults.append(
            Fault(
                f"this Python lies in {machine.prefix!r}: Ray starts no worker from such a path",
                "Move it to a path without spaces.",
            )
        )
    return faults


def faulty_packages(extra: str = "") -> list[Fault]:
    """Packages of fer-ray itself that are missing or of a version it was not built for."""
    return [
        Fault(
            f"fer-ray wants {text}", "Install the lock again: make setup, or pip install fer-ray."
        )
        for text in unmet(extra)
    ]


def unmet(extra: str) -> list[str]:
    """Requirements of fer-ray, or of an extra of it, that this environment does not meet."""
    from packaging.requirements import Requirement

    found = []
    for text in metadata.requires("fer-ray") or ():
        requirement = Requirement(text)
        marker = requirement.marker
        is_extra = marker is not None and "extra" in str(marker)
        if is_extra != bool(extra) or (marker and not marker.evaluate({"extra": extra})):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{requirement.name} ({requirement.specifier}), which is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name}{requirement.specifier}, but {version} is installed")
    return found


def _cores(places: Places) -> float:
    """Cores that the scheduler and the container's quota leave this process."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = (places.cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return float(allowed)
    return float(allowed) if quota == "max" else min(float(allowed), int(quota) / int(period))


def _memory(places: Places) -> tuple[float | None, float | None]:
    """Total and free, in GB; the container's limit where that is less."""
    try:
        text = places.meminfo.read_text()
    except OSError:
        return None, None
    values = {name: int(value) * 1024 for name, value in re.findall(r"^(\w+):\s+(\d+)", text, re.M)}
    total, free = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    try:
        limit = int((places.cgroup / "memory.max").read_text())
        used = int((places.cgroup / "memory.current").read_text())
        total, free = min(total, limit), min(free, limit - used)
    except (OSError, ValueError):  # no limit: the file says `max`
        pass
    return round(total / GB, 1), round(max(0, free) / GB, 1)


def _shm(places: Places) -> float | None:
    if not places.shm.is_dir():
        return None
    return round(shutil.disk_usage(places.shm).total / GB, 2)
