"""What one trial takes of the cluster, how many run at once, and whether that can ever be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fer_ray.config.sections.search import ResourcesConfig
from fer_ray.errors import UserError

TRIAL_CPU = 0.01
"""Of a trial's own process where workers train: Ray Train reserves their places itself."""
_WAIT_SAYS_EVERY_S = 15.0


@dataclass(frozen=True)
class Slots:
    """How a search is laid out on a cluster.

    Attributes:
        cpu, gpu: what one trial takes, all its workers together.
        workers: processes that train one trial together.
        count: trials at once, as the cluster is now; at least 1.
        limit: `resources.max_concurrent`, or None.
    """

    cpu: float
    gpu: float
    workers: int
    count: int
    limit: int | None


def plan_slots(wanted: ResourcesConfig, say: Callable[[str], None]) -> Slots:
    """Lay a search out on the cluster that this process is connected to.

    `auto` gives each trial one core a worker: side by side, one-thread trainings do more than one
    training with all threads (measured: 1.5 times on two cores). A trial of one worker must fit on
    one node. Where no node is large enough now and the cluster grows by itself, this waits for it.

    Args:
        wanted: the config's section.
        say: told while it waits.

    Raises:
        UserError: the cluster can never run one trial, or the request contradicts itself.
    """
    per_trial = wanted.per_trial
    check_request(wanted)
    spoken = -math.inf
    while True:
        nodes = _nodes()
        has_gpu = any(node.get("GPU", 0.0) > 0 for node in nodes)
        gpu = (1.0 if has_gpu else 0.0) if per_trial.gpu == "auto" else float(per_trial.gpu)
        cpu = 1.0 if per_trial.cpu == "auto" else float(per_trial.cpu)
        # A worker fits on one node; the workers of a trial may lie on several.
        places = sum(_places(node, cpu, gpu) for node in nodes)
        count = places // per_trial.workers
        if count >= 1:
            limit = None if wanted.max_concurrent == "auto" else int(wanted.max_concurrent)
            count = min(count, limit) if limit is not None else count
            return Slots(
                cpu * per_trial.workers, gpu * per_trial.workers, per_trial.workers, count, limit
            )
        asked = (
            f"a trial wants {per_trial.workers} x ({cpu:g} CPUs, {gpu:g} GPUs), but the nodes of "
            f"this cluster have {_described(nodes)}"
        )
        coming = _autoscaler_says(cpu, gpu)
        if coming is None:
            raise UserError(asked, "Lower resources.per_trial, or join a larger cluster.")
        if time.monotonic() - spoken >= _WAIT_SAYS_EVERY_S:
            spoken = time.monotonic()
            say(f"{asked}; waiting for the autoscaler ({coming})")
        _request(cpu, gpu, per_trial.workers)
        time.sleep(1.0)


def check_request(wanted: ResourcesConfig) -> None:
    """Refuse what no cluster can give.

    Raises:
        UserError: several workers on parts of one GPU: NCCL refuses two ranks on one card.
    """
    per_trial = wanted.per_trial
    if per_trial.workers > 1 and per_trial.gpu != "auto" and per_trial.gpu != int(per_trial.gpu):
        raise UserError(
            f"resources.per_trial: gpu: {per_trial.gpu:g} with workers: {per_trial.workers} puts "
            "two workers on one GPU, which their communication (NCCL) refuses",
            "Use gpu: 1, or workers: 1 with a part of a GPU.",
        )


def check_dashboard(slots: Slots) -> None:
    """Refuse a cluster on which the places of stopped workers would stay taken.

    Ray Train's cleaner asks the dashboard whether a trial is still alive.

    Raises:
        UserError: trials of several workers, and no dashboard.
    """
    if slots.workers == 1:
        return
    from ray._private.worker import global_worker

    node = global_worker.node
    if node is None or not node.webui_url:
        raise UserError(
            "trials of several workers need Ray's dashboard, and this cluster runs without it",
            "Start its head with --include-dashboard=true, or use resources.per_trial.workers: 1.",
        )


def _nodes() -> list[dict[str, float]]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _places(node: dict[str, float], cpu: float, gpu: float) -> int:
    """Workers that a node has room for. A GPU is cut into whole parts: 0.4 fits twice on each."""
    by_cpu = math.floor(node.get("CPU", 0.0) / cpu + 1e-9)
    if gpu <= 0:
        return by_cpu
    cards = node.get("GPU", 0.0)
    by_gpu = (
        math.floor(cards) * math.floor(1 / gpu + 1e-9)
        if gpu < 1
        else math.floor(cards / gpu + 1e-9)
    )
    return min(by_cpu, by_gpu)


def _described(nodes: list[dict[str, float]]) -> str:
    sizes = sorted({(n.get("CPU", 0.0), n.get("GPU", 0.0)) for n in nodes}, reverse=True)
    return ", ".join(f"{cpu:g} CPUs and {gpu:g} GPUs" for cpu, gpu in sizes) or "nothing"


def _autoscaler_says(cpu: float, gpu: float) -> str | None:
    """Which node an autoscaler could still add for one worker; None where none can come."""
    from ray._private.state import state

    config = state.get_cluster_config()
    for group in config.node_group_configs if config is not None else ():
        has = dict(group.resources)
        if group.max_count != 0 and has.get("CPU", 0) >= cpu and has.get("GPU", 0) >= gpu:
            return f"a node of type {group.name} would do"
    return None


def _request(cpu: float, gpu: float, workers: int) -> None:
    """Ask the autoscaler for room."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{"CPU": math.ceil(cpu), "GPU": math.ceil(gpu)}] * workers)
