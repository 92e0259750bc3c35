"""A scoring job: shards to Parquet parts, a ledger of finished ones, `_SUCCESS` last.

out/part-00000.parquet ...    rows, written atomically
out/_ledger/00000.json ...    a shard that is finished, with its counts
out/_manifest.json            what was scored with what
out/_stats.json               totals
out/_SUCCESS                  the job is whole
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray import __version__
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import NothingSucceededError, OutputExistsError
from fer_ray.score.listing import list_images
from fer_ray.score.rows import SCHEMA_VERSION
from fer_ray.score.shard import score_shard
from fer_ray.store import replacing, require_absent, write_atomic, write_json

ROWS_A_SHARD = 20_000
MANIFEST = "_manifest.json"
STATS = "_stats.json"
LEDGER = "_ledger"
SUCCESS = "_SUCCESS"


@dataclass(frozen=True)
class ScoreReport:
    """What a job did.

    Attributes:
        rows: all rows; errors: those with status `error`, by `error_type`.
        labels: ok rows by answer.
        num_skipped: files of the folders that are not images by their names.
        seconds: wall time from listing to `_SUCCESS`.
    """

    out: Path
    rows: int
    errors: dict[str, int]
    labels: dict[str, int]
    uncertain: int
    num_skipped: int
    seconds: float


def score(
    sources: Sequence[str],
    out: Path,
    predictor: Predictor,
    *,
    overwrite: bool,
    num_threads: int,
    on_shard: Callable[[int, int], None],
) -> ScoreReport:
    """Score folders and files into Parquet, in this process.

    Args:
        sources: folders and files.
        out: the new directory.
        predictor: the bundle at work.
        overwrite: delete an earlier job's output in `out` first.
        num_threads: decoding beside the network.
        on_shard: told (rows done, rows in all) after each shard.

    Raises:
        UserError: no image, or a source that is not there.
        OutputExistsError: `out` has files already.
        NothingSucceededError: not one image could be classified; the rows say why.
    """
    started = time.perf_counter()
    listing = list_images(sources)
    _make_room(out, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    metadata = _metadata(predictor)
    write_json(
        out / MANIFEST,
        {**metadata, "sources": list(sources), "images": len(listing.paths)},
    )
    totals = _Totals()
    for number, start in enumerate(range(0, len(listing.paths), ROWS_A_SHARD)):
        paths = listing.paths[start : start + ROWS_A_SHARD]
        table = score_shard(paths, predictor, num_threads)
        _write_part(out / f"part-{number:05d}.parquet", table, metadata)
        counts = totals.add(table)
        write_json(out / LEDGER / f"{number:05d}.json", {"shard": number, **counts})
        on_shard(totals.rows, len(listing.paths))
    report = ScoreReport(
        out,
        totals.rows,
        dict(totals.errors),
        dict(totals.labels),
        totals.uncertain,
        listing.num_skipped,
        time.perf_counter() - started,
    )
    write_json(
        out / STATS,
        {
            "rows": report.rows,
            "errors": report.errors,
            "labels": report.labels,
            "uncertain": report.uncertain,
            "skipped_files": report.num_skipped,
            "seconds": round(report.seconds, 3),
        },
    )
    write_atomic(out / SUCCESS, b"")
    if not report.labels:
        raise NothingSucceededError(
            f"none of {report.rows:,} images could be classified: {report.errors}",
            f"The rows in {out} say why, one by one.",
        )
    return report


def _make_room(out: Path, overwrite: bool) -> None:
    if overwrite and out.is_dir() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise OutputExistsError(
                f"{out} holds files that are not a scoring job's", "Choose another --out."
            )
        _delete_job(out)
    require_absent(out, "the output", "Choose another --out, or use --overwrite.")


def _delete_job(out: Path) -> None:
    """Delete what a job writes, and nothing else; `_SUCCESS` first, so that none looks whole."""
    for name in (SUCCESS, STATS, MANIFEST):
        (out / name).unlink(missing_ok=True)
    for part in out.glob("part-*.parquet"):
        part.unlink()
    shutil.rmtree(out / LEDGER, ignore_errors=True)


class _Totals:
    """Sums over shards."""

    def __init__(self) -> None:
        self.rows = 0
        self.uncertain = 0
        self.errors: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()

    def add(self, table: pa.Table) -> dict[str, Any]:
        """Count a shard; returns its own counts for the ledger."""
        errors = _value_counts(table.column("error_type"))
        labels = _value_counts(table.column("label"))
        uncertain = int(pc.sum(table.column("uncertain")).as_py() or 0)
        self.rows += table.num_rows
        self.errors.update(errors)
        self.labels.update(labels)
        self.uncertain += uncertain
        return {"rows": table.num_rows, "errors": errors, "labels": labels}


def _value_counts(column: pa.ChunkedArray[Any]) -> dict[str, int]:
    return dict(Counter(str(value) for value in column.drop_null().to_pylist()))


def _metadata(predictor: Predictor) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "bundle_id": predictor.bundle.id,
        "bundle_name": predictor.bundle.contents.name,
        "labels": list(predictor.class_names),
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "inference": predictor.inference,
        "fer_ray": __version__,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _write_part(path: Path, table: pa.Table, metadata: dict[str, Any]) -> None:
    text = {f"fer_ray.{key}": str(value) for key, value in metadata.items()}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(text), temporary, compression="zstd")
