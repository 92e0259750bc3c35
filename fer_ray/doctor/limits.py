"""What will bound a search or a scoring job, from the facts alone."""

from __future__ import annotations

from fer_ray.doctor.cluster import NodeReport
from fer_ray.doctor.machine import Machine


def limits_of(machine: Machine, reports: list[NodeReport]) -> list[str]:
    """A sentence for each limit.

    Args:
        machine: this one.
        reports: of the cluster's nodes; empty where the machine works alone.
    """
    if reports:
        cores = sum(report.node.resources.get("CPU", 0.0) for report in reports)
        gpus = sum(report.node.resources.get("GPU", 0.0) for report in reports)
        machines = [report.machine for report in reports if report.machine is not None]
    else:
        cores, gpus, machines = float(int(machine.cores)), float(len(machine.gpus)), [machine]
    return [*_search(cores, gpus), *_precision(machines), *_scoring(machine, cores, gpus)]


def _search(cores: float, gpus: float) -> list[str]:
    if gpus:
        count = f"{min(cores, gpus):g} trials at once, one on each of {gpus:g} GPUs"
        return [f"search: {count}; resources.per_trial.gpu: 0.25 puts four on one"]
    if not cores:
        return ["search: no trial fits now; it waits for the autoscaler where there is one"]
    count = f"{cores:g} trials at once, a core each"
    return [f"search: {count}; TPE wants {10 * cores:g} trials or more to learn from"]


def _precision(machines: list[Machine]) -> list[str]:
    kinds = sorted({machine.precision for machine in machines})
    if len(kinds) > 1:
        mixed = "some nodes compute in bf16, some in fp32: a trial's result depends on its node"
        return [f"search: {mixed}; train.precision: fp32 makes them alike"]
    if kinds == ["fp32"]:
        return ["training and scoring: fp32, for nothing here computes bf16 natively"]
    return []


def _scoring(machine: Machine, cores: float, gpus: float) -> list[str]:
    if gpus:
        return [f"scoring: {2 * gpus:g} actors, half a GPU each; {cores:g} cores decode for them"]
    limits = [f"scoring: {cores:g} cores decode and classify"]
    if "openvino" not in machine.extras:
        limits.append(
            "scoring: fer-ray[openvino] is not installed here, so the network runs in torch"
        )
    return limits
