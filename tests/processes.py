"""Processes below one's own, from the kernel's table."""

from __future__ import annotations

import contextlib
from pathlib import Path


def replicas_below(root: int) -> list[int]:
    """Serve's replicas that descend from a process."""
    parents, replicas = {}, []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if b"ray::ServeReplica" in (entry / "cmdline").read_bytes():
                replicas.append(pid)
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family.intersection(replicas))
