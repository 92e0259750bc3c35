"""Asking every node of the cluster that this process is connected to.

What travels to a node is a function's code and nothing of fer-ray, so that a node without fer-ray,
or with another one, can answer too.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fer_ray import __version__
from fer_ray.errors import UserError

ANSWER_S = 60.0
"""A node that has not answered by then is silent: its workers do not start."""


@dataclass(frozen=True)
class Versions:
    """What must be equal on all nodes and in the driver.

    Attributes:
        ray, python: as they call themselves.
        fer_ray: None where it cannot be imported.
    """

    ray: str
    python: str
    fer_ray: str | None

    def __str__(self) -> str:
        return f"fer-ray {self.fer_ray or 'missing'}, Ray {self.ray}, Python {self.python}"


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        id: Ray's, in hex.
        host: its name.
        is_head: whether the control store lives there.
        resources: CPU, GPU, memory (bytes), as Ray counts them.
    """

    id: str
    host: str
    is_head: bool
    resources: dict[str, float]

    def __str__(self) -> str:
        return f"{self.host} ({self.id[:8]})"


def nodes_alive() -> list[Node]:
    """The head first."""
    import ray

    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            "node:__internal_head__" in node["Resources"],
            {key: value for key, value in node["Resources"].items() if ":" not in key},
        )
        for node in listed
        if node["Alive"]
    ]
    return sorted(alive, key=lambda node: (not node.is_head, node.host, node.id))


def ask_nodes(
    question: Callable[[], Any], nodes: list[Node], timeout_s: float = ANSWER_S
) -> dict[str, Any]:
    """Run a function on each node, on all at once, beside whatever keeps its cores busy.

    Args:
        question: a function within a function, else its module must be there too.
        nodes: to ask.
        timeout_s: for all of them together.

    Returns:
        node id -> what it returned, or the exception that it raised or that came of asking.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        node.id: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote()
        for node in nodes
    }
    deadline = time.monotonic() + timeout_s
    answers: dict[str, Any] = {}
    for id_, answer in asked.items():
        try:
            answers[id_] = ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError as error:
            answers[id_] = error
            ray.cancel(answer, force=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this node's answer
            answers[id_] = error
    return answers


def own_versions() -> Versions:
    import ray

    return Versions(ray.__version__, platform.python_version(), __version__)


def version_question() -> Callable[[], tuple[str, str, str | None]]:
    """What a node is asked for its versions."""

    def answer() -> tuple[str, str, str | None]:
        import platform

        import ray

        try:
            from fer_ray import __version__ as own
        except ImportError:
            return ray.__version__, platform.python_version(), None
        return ray.__version__, platform.python_version(), own

    return answer


def versions_of(nodes: list[Node]) -> dict[str, Versions | Exception]:
    """Node id -> its versions, or why it did not answer."""
    answers = ask_nodes(version_question(), nodes)
    return {
        id_: answer if isinstance(answer, Exception) else Versions(*answer)
        for id_, answer in answers.items()
    }


def require_same_versions() -> None:
    """Before any work: every node runs this fer-ray, Ray and Python.

    A node that is gone by the time it is asked is passed over; one that comes later is not asked.

    Raises:
        UserError: a node that does not.
    """
    nodes, mine = nodes_alive(), own_versions()
    found = versions_of(nodes)
    different_ones = different(nodes, found, mine)
    if not different_ones:
        return
    still = {node.id for node in nodes_alive()}
    faults = [text for id_, text in different_ones if id_ in still]
    if faults:
        raise UserError(
            f"{len(faults)} of {len(nodes)} nodes do not run what this process runs ({mine}): "
            + "; ".join(faults),
            "Install the same on every node: one image, or one lock (cluster/README.md).",
        )


def different(
    nodes: list[Node], found: dict[str, Versions | Exception], mine: Versions
) -> list[tuple[str, str]]:
    """(node id, what is wrong) for each node that is not as this process."""
    faults = []
    for node in nodes:
        answer = found[node.id]
        if isinstance(answer, Exception):
            faults.append((node.id, f"{node} does not answer ({type(answer).__name__})"))
        elif answer != mine:
            faults.append((node.id, f"{node} has {answer}"))
    return faults
