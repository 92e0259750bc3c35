"""What the doctor says: facts, faults with their remedies, and limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Attributes:
        what: the value and the rule it breaks.
        remedy: what to do about it, one sentence.
    """

    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found.

    Attributes:
        machine: facts of this machine, by name.
        nodes: facts of each node, the head first; empty without a cluster.
        faults: what is wrong, in the order of the looking.
        limits: what will bound a search or a scoring job, a sentence each.
    """

    machine: dict[str, Any]
    nodes: tuple[dict[str, Any], ...]
    faults: tuple[Fault, ...]
    limits: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ok": not self.faults, **asdict(self)}

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{name}: {shown(value)}" for name, value in self.machine.items()]
        for node in self.nodes:
            facts = ", ".join(
                f"{name} {shown(value)}" for name, value in node.items() if name != "node"
            )
            lines.append(f"node {node['node']}: {facts}")
        lines += [f"limit: {limit}" for limit in self.limits]
        for fault in self.faults:
            lines += [f"fault: {fault.what}", f"  {fault.remedy}"]
        lines.append(f"{len(self.faults)} fault(s)" if self.faults else "nothing is wrong")
        return lines


def shown(value: Any) -> str:
    """A fact as people read it, parts of a collection joined."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "; ".join(shown(part) for part in value) or "none"
    return str(value)
