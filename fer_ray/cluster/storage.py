"""Whether every node sees a directory: asked before anything is spent."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

from fer_ray.cluster.object_folder import ObjectFolder
from fer_ray.errors import UserError


def check_shared(out: Path) -> None:
    """Write beside a directory and read it back from every node, and the other way round.

    Args:
        out: of a run or a scoring job; it need not be there.

    Raises:
        UserError: a node sees another disk; trials there would train for nothing.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in nodes if node["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    if all(node["NodeID"] == here for node in alive):
        return  # this machine alone
    token = secrets.token_hex(8)
    folder = out.parent / f".{out.name}.{token}.probe"
    folder.mkdir(parents=True)
    try:
        (folder / "driver").write_text(token, encoding="utf-8")
        probe = ray.remote(num_cpus=0)(probe_node)
        answers = [
            probe.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(folder), token, node["NodeID"])
            for node in alive
        ]
        blind = []
        for node, sees in zip(alive, ray.get(answers), strict=True):
            written = folder / node["NodeID"]
            back = written.is_file() and written.read_text(encoding="utf-8") == token
            if not (sees and back):
                blind.append(f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if blind:
        raise UserError(
            f"{len(blind)} of {len(alive)} nodes do not see {out.parent}: {', '.join(blind)}",
            "Give --out a directory that all nodes share (NFS, EFS, Filestore, a volume claim), "
            "or an address in object storage (s3://bucket/run).",
        )


def check_store(folder: ObjectFolder) -> None:
    """The same for a run in object storage.

    Args:
        folder: the run's, which need not be there.

    Raises:
        UserError: the driver or a node cannot write or read there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in nodes if node["Alive"]]
    token = secrets.token_hex(8)
    names = [f".probe-{token}/{node['NodeID']}" for node in alive]
    ours = f".probe-{token}/driver"
    blind = []
    try:
        folder.write(ours, token.encode())
        probe = ray.remote(num_cpus=0)(probe_store)
        answers = [
            probe.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(folder, ours, name, token)
            for node, name in zip(alive, names, strict=True)
        ]
        for node, name, fault in zip(alive, names, ray.get(answers), strict=True):
            if fault is None and folder.read(name) != token.encode():
                fault = "what it writes does not arrive"
            if fault is not None:
                blind.append(f"{node['NodeManagerHostname']} ({node['NodeID'][:8]}): {fault}")
        for name in (ours, *names):
            folder.delete(name)
    except OSError as error:
        raise UserError(
            f"--out: {error.strerror}", "Check the address, the region and the credentials."
        ) from error
    if blind:
        raise UserError(
            f"{len(blind)} of {len(alive)} nodes do not reach {folder.name}: {'; '.join(blind)}",
            "Give every node the credentials, the endpoint and the region of the storage.",
        )


def probe_store(folder: ObjectFolder, theirs: str, ours: str, token: str) -> str | None:
    """On one node: read what the driver wrote, write an answer; gives what went wrong."""
    try:
        if folder.read(theirs) != token.encode():
            return "it reads something else there"
        folder.write(ours, token.encode())
    except OSError as error:
        return str(error.strerror)[:200]
    return None


def probe_node(folder: str, token: str, node_id: str) -> bool:
    """On one node: read what the driver wrote, and write an answer where it can be written."""
    path = Path(folder)
    try:
        sees = (path / "driver").read_text(encoding="utf-8") == token
        (path / node_id).write_text(token, encoding="utf-8")
    except OSError:
        return False
    return sees
