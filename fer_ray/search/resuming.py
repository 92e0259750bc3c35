"""What `fer-ray resume` asks of a run before it goes on: the same space, the same data."""

from __future__ import annotations

from pathlib import Path

from fer_ray.config.space import SearchSpace, parse_space
from fer_ray.data.loading import source_of
from fer_ray.errors import UserError
from fer_ray.runs import RunDirectory, open_run
from fer_ray.search.study import space_sha256
from fer_ray.search.study_file import StudyFile
from fer_ray.store import write_json

EXTENDABLE = ("search.trials", "stop.", "resources.", "keep.", "confirm")
"""Addresses that `resume -s` may change: they decide how long and where, not what is compared."""


def open_interrupted(run: RunDirectory, overrides: tuple[str, ...]) -> tuple[SearchSpace, str]:
    """Check a run against what it was.

    Args:
        run: its directory.
        overrides: further ones; noted in `run.json`, so that the next resume knows them.

    Returns:
        its space, and the fingerprint of its data.

    Raises:
        UserError: no search, an override that would change what is compared, or a space or data
            that are not those of the run's beginning.
    """
    document = open_run(run.path).document()
    if document.get("verb") != "tune":
        raise UserError(f"{run.path} is a {document.get('verb')} run, not a search")
    for override in overrides:
        address = override.partition("=")[0].strip()
        if not any(address == name or address.startswith(name) for name in EXTENDABLE):
            raise UserError(
                f"-s {override} would change a search that has begun",
                "resume may change search.trials, stop, resources, keep and confirm; for "
                "anything else begin another run, with search.start_from: this run.",
            )
    together = [*document.get("overrides", []), *overrides]
    text = (run.path / "space.yaml").read_text(encoding="utf-8")
    space = parse_space(text, str(run.path / "space.yaml"), together)
    fingerprint = _fingerprint_of(space, document.get("working_directory"))
    begun = document["data_fingerprint"]
    if fingerprint != begun:
        raise UserError(
            f"the data have changed: {space.base.data.source} has the fingerprint "
            f"{fingerprint[:12]}, the run began with {begun[:12]}",
            "Put the data set back, or begin another run.",
        )
    noted = _noted_space(run)
    if noted is not None and noted != space_sha256(space):
        raise UserError(
            f"{run.path / 'space.yaml'} has changed since the run began, or another fer-ray "
            "version reads it differently",
            "Put it back, or begin another run.",
        )
    if overrides:
        write_json(run.path / "run.json", {**document, "overrides": together})
    return space, fingerprint


def _noted_space(run: RunDirectory) -> str | None:
    """The space's hash in `study.db`; None where the driver was killed before it wrote one."""
    if not run.study_db.is_file():
        return None
    return StudyFile.peek(run.study_db).get("space_sha256")


def _fingerprint_of(space: SearchSpace, working_directory: str | None) -> str:
    source = space.base.data.source
    if source is not None and working_directory is not None and not Path(source).exists():
        moved = Path(working_directory) / source
        if moved.exists():
            raise UserError(
                f"data.source {source} is relative to {working_directory}, where the run began",
                f"cd {working_directory} and resume from there.",
            )
    prepared = source_of(space.base.data)
    return prepared.fingerprint if prepared else "sample"
