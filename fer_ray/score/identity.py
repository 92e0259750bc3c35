"""Which job a directory holds: `_job.json`, and whether a resumed job is the same one."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from fer_ray import __version__
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UserError
from fer_ray.score.listing import Listing, hashed_identity
from fer_ray.score.options import RowOptions, SourceOptions
from fer_ray.score.output import Output
from fer_ray.score.rows import SCHEMA_VERSION
from fer_ray.store import write_json

COMPARED = (
    "schema_version",
    "bundle_id",
    "runtime",
    "precision",
    "views",
    "labels",
    "rows",
    "tables",
)


def job_document(
    predictor: Predictor, listing: Listing, rows: RowOptions, tables: SourceOptions
) -> dict[str, Any]:
    """`_job.json` of a new job: what decides its rows, and when it began."""
    identity = hashed_identity(listing.identity) if rows.hash_paths else listing.identity
    return {
        "format": 1,
        "schema_version": SCHEMA_VERSION,
        "bundle_id": predictor.bundle.id,
        "bundle_name": predictor.bundle.contents.name,
        "labels": list(predictor.class_names),
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "views": predictor.views,
        "inference": predictor.inference,
        "sources": identity,
        "rows": rows.as_dict(),
        "tables": {**asdict(tables), "keep_columns": list(tables.keep_columns)},
        "fer_ray": __version__,
        "pyarrow": pa.__version__,
        "time": now(),
        "snapshots": [{"first_shard": 0, "time": now()}],
    }


def next_snapshot(output: Output, found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Open another snapshot behind a finished job; `_SUCCESS` goes before the first change.

    Args:
        output: the job's directory.
        found: its `_job.json`.
        asked: what it would be now.

    Returns:
        the new `_job.json`, written.

    Raises:
        UserError: the job is not finished, or does not know its paths any more.
    """
    if asked["rows"]["hash_paths"]:
        raise UserError(
            "--incremental needs the paths, which --hash-paths has deleted",
            "Score into a new directory.",
        )
    if not output.success.is_file():
        raise UserError(f"the job in {output.root} is not finished", "Finish it with --resume.")
    first_shard = output.planned()[-1] + 1
    snapshots = [*found["snapshots"], {"first_shard": first_shard, "time": now()}]
    document = {**asked, "snapshots": snapshots, "time": found["time"]}
    output.success.unlink()
    output.complete.unlink(missing_ok=True)
    write_json(output.job, document)
    return document


def require_same(found: dict[str, Any], asked: dict[str, Any], *, versions: bool) -> None:
    """A resumed job is the same job.

    Args:
        found: `_job.json`.
        asked: what it would be now.
        versions: whether files that list others must be unchanged too.

    Raises:
        UserError: what differs, both values.
    """
    for name in COMPARED:
        if found.get(name) != asked[name]:
            raise UserError(
                f"the job was begun with {name} {_brief(found.get(name))}, "
                f"but this is {_brief(asked[name])}",
                "Give what it was begun with, or score into another --out.",
            )
    before, after = found["sources"], asked["sources"]
    if not versions:
        before = [each["source"] for each in before]
        after = [each["source"] for each in after]
    if before != after:
        raise UserError(
            f"the job was begun with the sources {_brief(before)}, but these are {_brief(after)}",
            "Give the same sources (unchanged, where they are lists), or another --out.",
        )


def metadata_of(document: dict[str, Any]) -> dict[str, str]:
    """A part's file metadata."""
    names = ("schema_version", "bundle_id", "bundle_name", "runtime", "precision", "fer_ray")
    text = {f"fer_ray.{name}": str(document[name]) for name in (*names, "pyarrow", "time")}
    return {**text, "fer_ray.labels": ",".join(document["labels"])}


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _brief(value: Any) -> str:
    return str(value)[:300]
