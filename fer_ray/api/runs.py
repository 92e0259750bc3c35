"""The verbs that look: at a run, of a search or of one training, and at machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_ray.doctor.findings import Diagnosis
    from fer_ray.search.history import RunHistory


def verb_of(run: str | Path) -> str:
    """What made a run: `tune` or `train`.

    Raises:
        UserError: no such run.
    """
    from fer_ray.runs import open_run as open_directory
    from fer_ray.search.mirror import local_run

    return str(open_directory(local_run(run)).document().get("verb"))


def open_run(run: str | Path) -> RunHistory:
    """A search as its `study.db` tells it, while it runs or after; `.frame()` is its DataFrame.

    Raises:
        UserError: there is no search.
    """
    from fer_ray.search.mirror import local_run
    from fer_ray.search.reading import read_run

    return read_run(local_run(run))


def report(run: str | Path) -> Path:
    """Write `report.html` of a search or a training into its run, replacing an earlier one.

    Raises:
        UserError: there is no run, or the page cannot be written.
    """
    from fer_ray.report.search_page import write_search_page
    from fer_ray.report.train_page import write_train_page
    from fer_ray.runs import RunDirectory
    from fer_ray.search.mirror import local_run

    if verb_of(run) == "train":
        return write_train_page(RunDirectory(Path(run)))
    return write_search_page(local_run(run))


def doctor(address: str | None = None, *, storage: str | Path | None = None) -> Diagnosis:
    """What this machine and a cluster offer, what is wrong with them, and the remedies.

    Args:
        address: of a Ray cluster: `auto` or HOST:PORT; None looks at this machine alone.
        storage: a directory in which runs shall lie; every node writes and reads a probe there.

    Raises:
        UserError: the cluster cannot be joined.
    """
    from fer_ray.doctor.examine import examine

    return examine(address, Path(storage) if storage is not None else None)
