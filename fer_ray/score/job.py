"""A scoring job from its first file to `_SUCCESS`: new, resumed, incremental or overwriting."""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fer_ray import __version__
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import (
    InterruptedRunError,
    NothingSucceededError,
    UnfinishedError,
    UserError,
)
from fer_ray.images.detect import build_detector, kind_of
from fer_ray.score import amend
from fer_ray.score.classify import Classifier
from fer_ray.score.listing import Listing, hashed_identity, no_image, open_sources
from fer_ray.score.local import Finished, Outcome, run_local
from fer_ray.score.options import Effort, RowOptions, SourceOptions
from fer_ray.score.output import Output, held, read_job, require_free
from fer_ray.score.parts import Counts, PartWriter
from fer_ray.score.planning import Plan
from fer_ray.score.prepare import Preparer, Recipe
from fer_ray.score.rows import SCHEMA_VERSION
from fer_ray.score.summary import ScoreReport, agreement_of, drift_of, query_of
from fer_ray.score.tables import spool
from fer_ray.score.transient import Patience
from fer_ray.store import read_json, write_atomic, write_json

MODES = ("new", "overwrite", "resume", "incremental")
RAY_FROM_ITEMS = 200_000
"""`--engine auto` leaves smaller jobs to this process."""
RAY_FROM_CORES = 4
"""On fewer cores Ray's own processes take more than its parallel decoding gives."""
ROUNDS = 3
"""Times an unfinished shard is tried in one run."""
MOST_UNFINISHED = 3
"""Shards in a row; then the machine or the storage is at fault, and the job stops."""
LEAST_ROWS_OF_A_RATE = 1_000
"""Before so many rows an error rate stops nothing."""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        sources: see `fer_ray.score.listing.open_sources`.
        out: the job's directory.
        mode: one of `MODES`.
        retry_errors: classify again what had become error rows, with `resume`.
        resume_line: what to type to go on; told when work is left undone.
    """

    sources: tuple[str, ...]
    out: Path
    mode: str
    retry_errors: bool
    rows: RowOptions
    tables: SourceOptions
    effort: Effort
    resume_line: str


@dataclass(frozen=True)
class Progress:
    """A job on its way.

    Attributes:
        rows, errors: of this run.
        num_items: of the whole job; None while it is listed.
        num_done: items done, earlier runs included.
        rate: rows a second of this run.
        seconds_left: None while the job is listed.
    """

    rows: int
    errors: dict[str, int]
    num_items: int | None
    num_done: int
    rate: float
    seconds_left: float | None


OnProgress = Callable[[Progress], None]


def run_job(request: Request, predictor: Predictor, on_progress: OnProgress) -> ScoreReport:
    """Score, and leave a directory that is whole or can be resumed.

    Raises:
        UserError: the sources, the options, or a job that is another one.
        OutputExistsError: the directory has files already.
        UnfinishedError: shards are left undone, or too many rows are errors.
        InterruptedRunError: by Ctrl-C.
        NothingSucceededError: not one image could be classified; the rows say why.
    """
    if request.rows.faces != "none":
        kind_of(request.rows.faces)
        build_detector(request.rows.faces)
    output = Output(request.out)
    existed = request.out.exists()
    with held(output):
        try:
            job = Job(request, predictor, output, on_progress)
            return job.run()
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted; finished shards in {request.out} are kept", _go_on(request)
            ) from None
        except OSError as error:
            raise UnfinishedError(
                f"stopped by the machine: {error}; finished shards in {request.out} are kept",
                _go_on(request),
            ) from error
        except UserError:
            if not existed and not output.job.exists():
                shutil.rmtree(request.out, ignore_errors=True)
            raise


def _go_on(request: Request) -> str:
    return f"Go on with: {request.resume_line}"


class Job:
    """One run of a job."""

    def __init__(
        self, request: Request, predictor: Predictor, output: Output, on_progress: OnProgress
    ) -> None:
        self.request, self.predictor, self.output = request, predictor, output
        self._on_progress = on_progress
        self._started = time.perf_counter()
        self._rows = self._done_before = 0
        self._errors: Counter[str] = Counter()
        self.plan: Plan | None = None

    def run(self) -> ScoreReport:
        request = self.request
        if request.mode in ("new", "overwrite"):
            require_free(self.output, request.mode == "overwrite")
        else:
            read_job(self.output)
        listing = self._listing()
        document = self._begin(listing)
        classifier = Classifier(self.predictor, request.rows, listing.kept)
        recipe = self._recipe(listing)
        self._metadata = metadata_of(document)
        self._schema = classifier.schema
        first_shard = int(document["snapshots"][-1]["first_shard"])
        self.plan = Plan(
            self.output,
            listing,
            first_shard,
            classifier.num_features,
            request.effort.rows_a_shard,
        )
        if not self.output.success.is_file():
            self._work(recipe, classifier)
            if not self.output.planned():
                self.output.delete()
                raise no_image(request.sources, self.plan.skipped)
        if request.retry_errors:
            self.output.success.unlink(missing_ok=True)
            amend.retry_errors(self.output, self._parts, Preparer(recipe), classifier)
        return self._settle(first_shard)

    # --- beginning ----------------------------------------------------------------------------

    def _listing(self) -> Listing:
        request = self.request
        copy = None
        if "-" in request.sources:
            copy = self.output.stdin_copy
            if not copy.is_file() or request.mode == "incremental":
                copy.parent.mkdir(parents=True, exist_ok=True)
                part = copy.with_suffix(".tmp")
                spool(sys.stdin.buffer, part)
                part.replace(copy)
        patience = Patience(request.effort.give_up_after_s)
        return open_sources(request.sources, request.tables, patience, copy)

    def _begin(self, listing: Listing) -> dict[str, Any]:
        """Write `_job.json`, or compare it with what is asked for now."""
        document = self._document(listing)
        mode = self.request.mode
        if mode in ("new", "overwrite"):
            write_json(self.output.job, document)
            return document
        found = read_job(self.output)
        require_same(found, document, versions=mode == "resume")
        if mode == "incremental":
            return self._next_snapshot(found, document)
        return found

    def _document(self, listing: Listing) -> dict[str, Any]:
        request, predictor = self.request, self.predictor
        identity = listing.identity
        describe = getattr(predictor, "describe", None)
        return {
            "format": 1,
            "schema_version": SCHEMA_VERSION,
            "bundle_id": predictor.bundle.id,
            "bundle_name": predictor.bundle.contents.name,
            "labels": list(predictor.class_names),
            "runtime": predictor.runtime,
            "precision": predictor.precision,
            **({"runtime_record": describe()} if callable(describe) else {}),
            "sources": hashed_identity(identity) if request.rows.hash_paths else identity,
            "rows": request.rows.as_dict(),
            "tables": {**asdict(request.tables), "keep_columns": list(request.tables.keep_columns)},
            "fer_ray": __version__,
            "pyarrow": pa.__version__,
            "time": now(),
            "snapshots": [{"first_shard": 0, "time": now()}],
        }

    def _next_snapshot(
        self, found: dict[str, Any], document: dict[str, Any]
    ) -> dict[str, Any]:
        """Open another snapshot behind a finished job; `_SUCCESS` goes before the first change."""
        if self.request.rows.hash_paths:
            raise UserError(
                "--incremental needs the paths, which --hash-paths has deleted",
                "Score into a new directory.",
            )
        if not self.output.success.is_file():
            raise UserError(
                f"the job in {self.output.root} is not finished", "Finish it first with --resume."
            )
        first_shard = self.output.planned()[-1] + 1
        document["snapshots"] = [
            *found["snapshots"],
            {"first_shard": first_shard, "time": now()},
        ]
        document["time"] = found["time"]
        self.output.success.unlink()
        self.output.complete.unlink(missing_ok=True)
        write_json(self.output.job, document)
        return document

    # --- work ---------------------------------------------------------------------------------

    def _recipe(self, listing: Listing) -> Recipe:
        effort = self.request.effort
        return Recipe(
            self.predictor.source_px,
            tuple(self.predictor.class_names),
            self.request.rows,
            listing.storages,
            effort.give_up_after_s,
            effort.threads,
            effort.reads_in_flight,
        )

    def _work(self, recipe: Recipe, classifier: Classifier) -> None:
        """Score what is not in the ledger; several rounds for what transient faults left."""
        assert self.plan is not None
        self.output.sweep()
        self._done_before = sum(
            entry["rows"] for entry in self.output.entries() if entry["shard"] >= self.plan.first_shard
        )
        wait_s = 0.5
        reasons: dict[int, str] = {}
        for round_ in range(ROUNDS):
            reasons = {}
            for outcome in self._outcomes(recipe, classifier):
                if isinstance(outcome, Finished):
                    self._check_rate()
                    continue
                reasons[outcome.shard] = outcome.reason
                if len(reasons) >= MOST_UNFINISHED:
                    break
            if not reasons or len(reasons) >= MOST_UNFINISHED or round_ == ROUNDS - 1:
                break
            time.sleep(wait_s)
            wait_s *= 2
        if reasons:
            raise UnfinishedError(
                f"{len(reasons)} shard(s) could not be finished: {next(iter(reasons.values()))}",
                _go_on(self.request),
            )

    def _outcomes(self, recipe: Recipe, classifier: Classifier) -> Iterator[Outcome]:
        assert self.plan is not None
        effort = self.request.effort
        if self._on_ray():
            from fer_ray.score import ray_data

            return ray_data.run_on_ray(
                self.plan.shards(),
                self.output,
                recipe,
                classifier,
                self._parts,
                effort,
                self._tick,
            )
        return run_local(
            self.plan.shards(),
            self.output,
            Preparer(recipe),
            classifier,
            self._parts,
            effort.rows_a_chunk,
            self._tick,
        )

    def _on_ray(self) -> bool:
        return self.request.effort.engine == "ray"

    def _parts(self, shard: int) -> PartWriter:
        return PartWriter(
            self.output.part(shard), self._schema, self._metadata, self.predictor.class_names
        )

    def _tick(self, rows: pa.Table) -> None:
        self._rows += rows.num_rows
        errors = rows.column("error_type").drop_null()
        self._errors.update(errors.to_pylist())
        seconds = time.perf_counter() - self._started
        assert self.plan is not None
        rate = self._rows / max(seconds, 1e-9)
        total = self.plan.num_items
        done = self._done_before + self._rows
        left = None if total is None else max(total - done, 0) / rate
        self._on_progress(Progress(self._rows, dict(self._errors), total, done, rate, left))

    def _check_rate(self) -> None:
        limit = self.request.effort.max_error_rate
        errors = sum(self._errors.values())
        if self._rows >= LEAST_ROWS_OF_A_RATE and errors > limit * self._rows:
            raise self._too_many(errors, self._rows)

    def _too_many(self, errors: int, rows: int) -> UnfinishedError:
        limit = self.request.effort.max_error_rate
        kinds = ", ".join(f"{name} {count:,}" for name, count in self._errors.most_common())
        return UnfinishedError(
            f"{errors:,} of {rows:,} rows are errors ({kinds}); "
            f"--max-error-rate allows {limit:g}",
            f"Look at them, then go on with a higher rate: {self.request.resume_line}",
        )

    # --- end ----------------------------------------------------------------------------------

    def _settle(self, first_shard: int) -> ScoreReport:
        """Totals, manifest, and `_SUCCESS` last."""
        assert self.plan is not None
        if first_shard:
            amend.drop_replaced(self.output, first_shard, self._parts)
        counts = Counts(self.predictor.class_names)
        parts = []
        for entry in self.output.entries():
            counts.add_entry(entry)
            name = self.output.part(entry["shard"]).name
            parts.append({"name": name, "rows": entry["rows"], "bytes": entry["bytes"]})
        errors = sum(counts.errors.values())
        self._errors = counts.errors
        if errors > self.request.effort.max_error_rate * counts.rows:
            raise self._too_many(errors, counts.rows)
        report = self._report(counts, parts)
        if not self.output.success.is_file():
            write_json(self.output.root / "_stats.json", stats_of(report))
            document = {**read_json(self.output.job), "parts": parts, "rows": counts.rows}
            write_json(self.output.root / "_manifest.json", document)
            write_atomic(self.output.success, b"")
        if self.request.rows.hash_paths:
            shutil.rmtree(self.output.complete.parent, ignore_errors=True)
        if not counts.status.get("ok") and not counts.status.get("no_face"):
            raise NothingSucceededError(
                f"none of {counts.rows:,} images could be classified: {dict(counts.errors)}",
                f"The rows in {self.output.root} say why, one by one.",
            )
        return report

    def _report(self, counts: Counts, parts: Sequence[dict[str, Any]]) -> ScoreReport:
        skipped = read_json(self.output.complete)["skipped"] if self.output.complete.is_file() else {}
        labels = {name: counts.labels[name] for name in self.predictor.class_names}
        labels = {name: count for name, count in labels.items() if count}
        contents = self.predictor.bundle.contents
        return ScoreReport(
            self.output.root,
            counts.rows,
            dict(counts.status),
            dict(counts.errors),
            labels,
            counts.uncertain,
            counts.scores.tolist(),
            skipped,
            len(parts),
            sum(int(part["bytes"]) for part in parts),
            time.perf_counter() - self._started,
            self._rows,
            agreement_of(counts),
            drift_of(labels, tuple(self.predictor.class_names), contents.metrics),
            query_of(self.output.root),
        )


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def metadata_of(document: dict[str, Any]) -> dict[str, str]:
    """A part's file metadata."""
    names = ("schema_version", "bundle_id", "bundle_name", "runtime", "precision", "fer_ray")
    names += ("pyarrow", "time")
    text = {f"fer_ray.{name}": str(document[name]) for name in names}
    return {**text, "fer_ray.labels": ",".join(document["labels"])}


def stats_of(report: ScoreReport) -> dict[str, Any]:
    """`_stats.json`."""
    document = report.as_dict()
    del document["out"], document["query"]
    document["seconds"] = round(report.seconds, 3)
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
    names = ("schema_version", "bundle_id", "runtime", "precision", "labels", "rows", "tables")
    for name in names:
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


def _brief(value: Any) -> str:
    return str(value)[:300]
