"""A scoring job from its first file to `_SUCCESS`: new, resumed, incremental or overwriting."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import (
    InterruptedRunError,
    NothingSucceededError,
    UnfinishedError,
    UserError,
)
from fer_ray.images.detect import build_detector
from fer_ray.score import amend
from fer_ray.score.classify import Classifier
from fer_ray.score.identity import job_document, metadata_of, next_snapshot, require_same
from fer_ray.score.listing import Listing, no_image, open_sources
from fer_ray.score.local import Finished, Outcome, run_local
from fer_ray.score.options import Effort, RowOptions, SourceOptions
from fer_ray.score.output import Output, began, held, read_job, require_free
from fer_ray.score.parts import Counts, PartWriter
from fer_ray.score.planning import Plan
from fer_ray.score.prepare import Preparer, Recipe
from fer_ray.score.summary import ScoreReport, report_of, stats_of
from fer_ray.score.tables import spool
from fer_ray.score.transient import Patience
from fer_ray.store import read_json, write_atomic, write_json

RAY_FROM_ITEMS = 200_000
"""`--engine auto` leaves smaller jobs to this process."""
RAY_FROM_CORES = 4
"""On fewer cores Ray's own processes take more than its parallel decoding gives."""
WAITS_S = (0.5, 1.0)
"""Before each further round over the shards that transient faults left unfinished."""
MOST_UNFINISHED = 3
"""Shards of one round; then the machine or the storage is at fault, and the job stops."""
LEAST_ROWS_OF_A_RATE = 1_000
"""Before so many rows an error rate stops nothing."""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        sources: see `fer_ray.score.listing.open_sources`.
        out: the job's directory.
        mode: `new`, `overwrite`, `resume` or `incremental`.
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

    @property
    def go_on(self) -> str:
        return f"Go on with: {self.resume_line}"


@dataclass(frozen=True)
class Progress:
    """A job on its way.

    Attributes:
        errors: of this run, by `error_type`.
        num_items: of the whole job; None while it is listed.
        num_done: items done, earlier runs included.
        rate: rows a second of this run.
        seconds_left: None while the job is listed.
    """

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
        build_detector(request.rows.faces)  # says at once what is missing
    output = Output(request.out)
    existed = request.out.exists()
    with held(output):
        try:
            return Job(request, predictor, output, on_progress).run()
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted; finished shards in {request.out} are kept", request.go_on
            ) from None
        except UnfinishedError as error:
            if error.remedy is not None:
                raise
            raise UnfinishedError(error.message, request.go_on) from error
        except OSError as error:
            raise UnfinishedError(
                f"stopped by the machine: {error}; finished shards in {request.out} are kept",
                request.go_on,
            ) from error
        except UserError:
            if not existed and not output.job.exists():
                shutil.rmtree(request.out, ignore_errors=True)
            raise


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

    def run(self) -> ScoreReport:
        request = self.request
        self._is_new = request.mode in ("new", "overwrite")
        if self._is_new:
            require_free(self.output, request.mode == "overwrite")
        else:
            self._is_new = not began(self.output)
        listing = self._listing()
        classifier = Classifier(self.predictor, request.rows, listing.kept)
        document = self._begin(listing)
        self._schema, self._metadata = classifier.schema, metadata_of(document)
        first_shard = int(document["snapshots"][-1]["first_shard"])
        rows_a_shard = request.effort.rows_a_shard
        self._plan = Plan(self.output, listing, first_shard, classifier.num_features, rows_a_shard)
        recipe = self._recipe(listing)
        if not self.output.success.is_file():
            self._work(recipe, classifier)
            if not self.output.planned():
                self.output.delete()
                raise no_image(request.sources, self._plan.skipped)
        if request.retry_errors:
            if not self.output.planned():
                raise UserError("--retry-errors needs the paths, which --hash-paths has deleted")
            self.output.success.unlink(missing_ok=True)
            amend.retry_errors(self.output, self._parts, Preparer(recipe), classifier)
        return self._settle(first_shard)

    # --- beginning ------------------------------------------------------------------------------

    def _listing(self) -> Listing:
        request = self.request
        copy = None
        if "-" in request.sources:
            copy = self.output.stdin_copy
            if request.mode != "resume" or not copy.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                part = copy.with_name(f".{copy.name}.tmp")
                spool(sys.stdin.buffer, part)
                part.replace(copy)
        patience = Patience(request.effort.give_up_after_s)
        return open_sources(request.sources, request.tables, patience, copy)

    def _begin(self, listing: Listing) -> dict[str, Any]:
        """Write `_job.json`, or compare it with what is asked for now."""
        request = self.request
        asked = job_document(self.predictor, listing, request.rows, request.tables)
        if self._is_new:
            self.output.sweep()
            write_json(self.output.job, asked)
            return asked
        found = read_job(self.output)
        require_same(found, asked, versions=request.mode == "resume")
        if request.mode == "incremental":
            return next_snapshot(self.output, found, asked)
        return found

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

    # --- work -----------------------------------------------------------------------------------

    def _work(self, recipe: Recipe, classifier: Classifier) -> None:
        """Score what is not in the ledger; several rounds for what transient faults left.

        Raises:
            UnfinishedError: something is left after them, or too many rows are errors.
        """
        self.output.sweep()
        first = self._plan.first_shard
        entries = self.output.entries()
        self._done_before = sum(entry["rows"] for entry in entries if entry["shard"] >= first)
        for wait_s in (*WAITS_S, None):
            reasons = self._round(recipe, classifier)
            if not reasons:
                return
            if wait_s is None or len(reasons) >= MOST_UNFINISHED:
                raise UnfinishedError(
                    f"{len(reasons)} shard(s) could not be finished: {reasons[0]}",
                    self.request.go_on,
                )
            time.sleep(wait_s)

    def _round(self, recipe: Recipe, classifier: Classifier) -> list[str]:
        """Why shards are left unfinished; it ends early when several are."""
        reasons: list[str] = []
        for outcome in self._outcomes(recipe, classifier):
            if isinstance(outcome, Finished):
                self._check_rate(sum(self._errors.values()), self._rows)
                continue
            reasons.append(outcome.reason)
            if len(reasons) >= MOST_UNFINISHED:
                break
        return reasons

    def _outcomes(self, recipe: Recipe, classifier: Classifier) -> Iterator[Outcome]:
        effort = self.request.effort
        on_ray, shards = self._choose(self._plan.shards())
        if on_ray:
            from fer_ray.score.ray_data import run_on_ray

            return run_on_ray(
                shards, self.output, recipe, classifier, self._parts, effort, self._tick
            )
        preparer = Preparer(recipe)
        chunk = effort.rows_a_chunk
        return run_local(shards, self.output, preparer, classifier, self._parts, chunk, self._tick)

    def _choose(self, shards: Iterator[int]) -> tuple[bool, Iterator[int]]:
        """Whether on Ray; `auto` starts the listing to see whether the job is large."""
        engine = self.request.effort.engine
        if engine != "auto":
            return engine == "ray", shards
        if self.request.effort.address or os.environ.get("RAY_ADDRESS"):
            return True, shards
        if (os.cpu_count() or 1) < RAY_FROM_CORES:
            return False, shards
        seen: list[int] = []
        rows = 0
        for shard in shards:
            seen.append(shard)
            rows += pq.read_metadata(self.output.inputs(shard)).num_rows
            if rows >= RAY_FROM_ITEMS:
                return True, itertools.chain(seen, shards)
        return False, iter(seen)

    def _parts(self, shard: int) -> PartWriter:
        return PartWriter(
            self.output.part(shard), self._schema, self._metadata, self.predictor.class_names
        )

    def _tick(self, rows: pa.Table) -> None:
        self._rows += rows.num_rows
        self._errors.update(map(str, rows.column("error_type").drop_null().to_pylist()))
        rate = self._rows / max(time.perf_counter() - self._started, 1e-9)
        total, done = self._plan.num_items, self._done_before + self._rows
        left = None if total is None else max(total - done, 0) / rate
        self._on_progress(Progress(dict(self._errors), total, done, rate, left))

    def _check_rate(self, errors: int, rows: int, least: int = LEAST_ROWS_OF_A_RATE) -> None:
        limit = self.request.effort.max_error_rate
        if rows >= least and errors > limit * rows:
            kinds = ", ".join(f"{name} {count:,}" for name, count in self._errors.most_common())
            raise UnfinishedError(
                f"{errors:,} of {rows:,} rows are errors ({kinds}); --max-error-rate allows "
                f"{limit:g}",
                f"Look at them, then go on with a higher rate: {self.request.resume_line}",
            )

    # --- end ------------------------------------------------------------------------------------

    def _settle(self, first_shard: int) -> ScoreReport:
        """Totals, manifest, and `_SUCCESS` last."""
        output = self.output
        if first_shard:
            amend.drop_replaced(output, first_shard, self._parts)
        counts = Counts(self.predictor.class_names)
        parts = []
        for entry in output.entries():
            counts.add_entry(entry)
            name = output.part(entry["shard"]).name
            parts.append({"name": name, "rows": entry["rows"], "bytes": entry["bytes"]})
        self._errors = counts.errors
        self._check_rate(sum(counts.errors.values()), counts.rows, least=1)
        seconds = time.perf_counter() - self._started
        contents = self.predictor.bundle.contents
        report = report_of(output, counts, parts, seconds, self._rows, contents.metrics)
        if not output.success.is_file():
            write_json(output.stats, stats_of(report))
            document = {**read_json(output.job), "parts": parts, "rows": counts.rows}
            write_json(output.manifest, document)
            write_atomic(output.success, b"")
        if self.request.rows.hash_paths:
            shutil.rmtree(output.complete.parent, ignore_errors=True)
        if not counts.status.get("ok") and not counts.status.get("no_face"):
            raise NothingSucceededError(
                f"none of {counts.rows:,} images could be classified: {dict(counts.errors)}",
                f"The rows in {output.root} say why, one by one.",
            )
        return report
