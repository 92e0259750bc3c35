"""The whole examination: this machine, and the cluster behind an address."""

from __future__ import annotations

from pathlib import Path

from fer_ray.cluster.nodes import own_versions
from fer_ray.doctor.cluster import NodeReport, faults_of_nodes, look_at_nodes, storage_faults
from fer_ray.doctor.findings import Diagnosis, Fault
from fer_ray.doctor.limits import limits_of
from fer_ray.doctor.machine import Places, faults_of, faulty_packages, look
from fer_ray.ray_session import joined


def examine(
    address: str | None, storage: Path | None = None, places: Places | None = None
) -> Diagnosis:
    """Look at everything; nothing is left behind.

    Args:
        address: of a cluster; None is this machine alone.
        storage: a directory in which runs shall lie.
        places: where this machine's facts stand.

    Raises:
        UserError: the cluster cannot be joined.
    """
    machine = look(places)
    faults = [*faulty_packages(), *faults_of(machine)]
    reports: list[NodeReport] = []
    if address is None:
        faults += _own_storage(storage)
    else:
        with joined(address):
            reports = look_at_nodes()
            of_nodes = faults_of_nodes(reports, own_versions())
            faults += of_nodes
            # The probe is a function of fer-ray's: it needs the same one everywhere.
            if storage is not None and all(r.versions == own_versions() for r in reports):
                faults += storage_faults(storage)
    nodes = tuple(report.as_dict() for report in reports)
    return Diagnosis(machine.as_dict(), nodes, tuple(faults), tuple(limits_of(machine, reports)))


def _own_storage(storage: Path | None) -> list[Fault]:
    """Whether this machine may write there."""
    import tempfile

    if storage is None:
        return []
    try:
        with tempfile.TemporaryDirectory(prefix=".fer-ray-doctor-", dir=storage):
            return []
    except OSError as error:
        return [
            Fault(f"{storage} cannot be written: {error.strerror}", "Give another --storage DIR.")
        ]
