"""A cluster: what each node runs and has, whether they see one storage, and one time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fer_ray.cluster.nodes import (
    Node,
    Versions,
    ask_nodes,
    different,
    nodes_alive,
    own_versions,
    versions_of,
)
from fer_ray.cluster.storage import check_shared
from fer_ray.doctor.findings import Fault
from fer_ray.doctor.machine import Machine, faults_of, look
from fer_ray.errors import UserError

MOST_CLOCK_S = 2.0
"""Nodes may differ by so much: trials compare their own clock with the search's deadline."""
_ROUNDS = 3


@dataclass(frozen=True)
class NodeReport:
    """What one node answered.

    Attributes:
        node: who.
        versions: or why it gave none.
        clock_s: its clock minus this machine's, with `clock_error_s`: half the time that asking
            took; None where it did not answer.
        machine: its facts; None where it runs another fer-ray.
    """

    node: Node
    versions: Versions | Exception
    clock_s: float | None = None
    clock_error_s: float | None = None
    machine: Machine | None = None

    def as_dict(self) -> dict[str, Any]:
        """For people and `--json`."""
        facts: dict[str, Any] = {"node": str(self.node), "head": self.node.is_head}
        facts["resources"] = {
            name: self.node.resources[name]
            for name in ("CPU", "GPU")
            if name in self.node.resources
        }
        if isinstance(self.versions, Versions):
            facts |= asdict(self.versions)
        else:
            facts["error"] = str(self.versions)[:300]
        if self.clock_s is not None:
            facts["clock_s"] = round(self.clock_s, 3)
        if self.machine is not None:
            kept = ("processor", "precision", "memory_gb", "shm_gb", "disk_free_gb", "gpus")
            facts |= {name: getattr(self.machine, name) for name in kept}
        return facts


def look_at_nodes() -> list[NodeReport]:
    """Ask every node of the cluster that this process is connected to."""
    nodes = nodes_alive()
    versions, mine = versions_of(nodes), own_versions()
    reports = {node.id: NodeReport(node, versions[node.id]) for node in nodes}
    answering = [node for node in nodes if isinstance(versions[node.id], Versions)]
    for node in answering:
        clock = _clock(node)
        if clock is not None:
            reports[node.id] = replace(reports[node.id], clock_s=clock[0], clock_error_s=clock[1])
    alike = [node for node in answering if versions[node.id] == mine]
    for id_, machine in ask_nodes(_machine_question(), alike).items():
        if isinstance(machine, Machine):
            reports[id_] = replace(reports[id_], machine=machine)
    return [reports[node.id] for node in nodes]


def _machine_question() -> Callable[[], Any]:
    def answer() -> Any:
        return look()

    return answer


def _clock(node: Node) -> tuple[float, float] | None:
    """(difference, half the round trip) in seconds, of the quickest of a few rounds."""

    def answer() -> float:
        import time

        return time.time()

    found: tuple[float, float] | None = None
    for _ in range(_ROUNDS):
        before = time.time()
        told = ask_nodes(answer, [node])[node.id]
        after = time.time()
        if isinstance(told, Exception):
            continue
        error = (after - before) / 2
        if found is None or error < found[1]:
            found = told - (before + after) / 2, error
    return found


def faults_of_nodes(reports: list[NodeReport], mine: Versions) -> list[Fault]:
    """What is wrong with what the nodes answered.

    Args:
        reports: of all nodes.
        mine: what this process runs.
    """
    nodes = [report.node for report in reports]
    faults = [
        Fault(
            f"{text}; this process has {mine}",
            "Install the same on every node: one image, or one lock.",
        )
        for _, text in different(nodes, {r.node.id: r.versions for r in reports}, mine)
    ]
    for report in reports:
        if report.clock_s is not None and report.clock_error_s is not None:
            off = abs(report.clock_s) - report.clock_error_s
            if off > MOST_CLOCK_S:
                faults.append(
                    Fault(
                        f"the clock of {report.node} differs from this one's by "
                        f"{report.clock_s:+.1f} s: trials there end by another time",
                        "Let all nodes follow one time server (chrony, systemd-timesyncd).",
                    )
                )
        if report.machine is not None:
            faults += [
                Fault(f"on {report.node} {fault.what}", fault.remedy)
                for fault in faults_of(report.machine)
            ]
    return faults


def storage_faults(storage: Path) -> list[Fault]:
    """Whether every node reads and writes a directory; needs the same fer-ray on all of them."""
    try:
        check_shared(storage / "run")
    except UserError as error:
        return [Fault(error.message, error.remedy or "")]
    except OSError as error:
        return [
            Fault(f"{storage} cannot be written: {error.strerror}", "Give another --storage DIR.")
        ]
    return []
