"""Shards on a cluster: Ray Data streams chunks from decoding tasks to scoring actors.

    chunk numbers -> prepare (tasks, many reads in flight) -> classify (actors) -> this process

What flows are chunks of a shard: pixels between the two stages, finished rows behind them. Ray Data
holds the decoders back while the actors are busy. The driver sees rows only, writes each part in
the order of its chunks and then the ledger: a part is whole or absent wherever a worker dies, and
Ray makes lost chunks again. The listing goes on in a thread meanwhile.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.bundle.manifest import MANIFEST
from fer_ray.cluster.storage import check_shared
from fer_ray.errors import UnfinishedError
from fer_ray.ray_session import ray_session
from fer_ray.score.classify import Classifier
from fer_ray.score.items import items_of
from fer_ray.score.local import Assembly, Outcome, Parts, Tick
from fer_ray.score.options import Effort, RowOptions
from fer_ray.score.output import Output
from fer_ray.score.prepare import Prepared, Preparer, Recipe
from fer_ray.score.transient import short
from fer_ray.store import read_json

PIXEL_BYTES_A_CHUNK = 8 * 1024 * 1024
"""Of one chunk between the stages: 3,640 images of 48 pixels."""
CHUNKS_A_WAVE = 4_096
"""One run of Ray Data; the listing fills the next one meanwhile."""
FILL_S = 5.0
"""A wave waits so long for more of the listing: each starts its actors anew, some seconds."""
PREPARE_CPUS = 0.5
"""A decoding task waits for its reads about as long as it decodes."""

Row = dict[str, Any]


def run_on_ray(
    shards: Iterator[int],
    output: Output,
    recipe: Recipe,
    classifier: Classifier,
    parts: Parts,
    effort: Effort,
    tick: Tick,
) -> Iterator[Outcome]:
    """Score shards on the cluster that this process is connected to, or on a local Ray.

    Args:
        shards: whose inputs files are written; taken in a thread.
        output: the job's directory, on storage that every node sees.
        recipe: of the pixels.
        classifier: of the rows; its bundle is copied to every actor.
        parts: opens a part.
        effort: GPU share, and the cluster's address.
        tick: told each chunk's rows.

    Raises:
        UserError: the cluster cannot be joined, or a node does not see the directory.
    """
    with ray_session(address=effort.address):
        import ray

        check_shared(output.root)
        planned = Ahead(shards)
        assembly = Assembly(output, parts)
        try:
            while wave := planned.wave(output, rows_of_chunk(recipe.size_px)):
                for row in _stream(wave, output, recipe, classifier, effort):
                    outcome = _take(row, assembly, tick)
                    if outcome is not None:
                        yield outcome
        except ray.exceptions.RayError as error:
            raise UnfinishedError(f"Ray gave up: {short(error)}") from error
        finally:
            planned.stop()
            assembly.abandon()


def rows_of_chunk(size_px: int) -> int:
    return max(64, PIXEL_BYTES_A_CHUNK // (size_px * size_px))


class Ahead:
    """Takes shards from the listing in a thread, so that listing and scoring overlap."""

    def __init__(self, shards: Iterator[int]) -> None:
        self._queue: queue.Queue[int | BaseException | None] = queue.Queue()
        self._stopped = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(shards,), daemon=True)
        self._thread.start()

    def _run(self, shards: Iterator[int]) -> None:
        try:
            for shard in shards:
                if self._stopped.is_set():
                    return
                self._queue.put(shard)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the shards are taken
            self._queue.put(error)

    def wave(self, output: Output, rows_a_chunk: int) -> list[Row]:
        """The chunks of all shards that are there within a moment; empty at the end.

        Raises:
            FerRayError, OSError: what the listing met.
        """
        chunks: list[Row] = []
        until = time.monotonic() + FILL_S
        while not self._ended and len(chunks) < CHUNKS_A_WAVE:
            left = until - time.monotonic()
            try:
                shard = self._queue.get(timeout=max(left, 0.01) if chunks else None)
            except queue.Empty:
                break
            if shard is None:
                self._ended = True
            elif isinstance(shard, BaseException):
                raise shard
            else:
                rows = pq.read_metadata(output.inputs(shard)).num_rows
                count = -(-rows // rows_a_chunk)
                chunks += [
                    {"shard": shard, "chunk": n, "num_chunks": count, "start": n * rows_a_chunk}
                    for n in range(count)
                ]
        return chunks

    def stop(self) -> None:
        """End the thread at its next shard."""
        self._stopped.set()
        self._thread.join(timeout=30)


def _stream(
    wave: list[Row], output: Output, recipe: Recipe, classifier: Classifier, effort: Effort
) -> Iterator[Row]:
    """One run of Ray Data over the chunks of a wave; rows as they come, in no fixed order."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    kept = classifier.kept.serialize().to_pybytes()
    bundle = ray.put(bundle_files(classifier.predictor.bundle.path))
    actor = {
        "bundle": bundle,
        "runtime": classifier.predictor.runtime,
        "precision": classifier.predictor.precision,
        "views": classifier.predictor.views,
        "options": recipe.options,
        "kept": kept,
    }
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_gpus, num_cpus = resources.get("GPU", 0.0), resources.get("CPU", 1.0)
    if num_gpus:
        gpu_share, classify_cpus = effort.gpu_share, 0
        most_classify = int(num_gpus / gpu_share)
        most_prepare = int(num_cpus / PREPARE_CPUS)
    else:
        # Decoding takes a fifth to a half of the time: the rest of the cores may classify.
        most_classify, classify_cpus, gpu_share = int(num_cpus * 0.75), 1, 0.0
        most_prepare = int((num_cpus - 1) / PREPARE_CPUS)
    chunks = ray.data.from_items(wave, override_num_blocks=len(wave))
    prepared = chunks.map(
        PrepareChunk,  # type: ignore[arg-type]
        fn_constructor_args=(str(output.root.absolute()), recipe, kept),
        num_cpus=PREPARE_CPUS,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, most_prepare)),
    )
    classified = prepared.map(
        ClassifyChunk,  # type: ignore[arg-type]
        fn_constructor_kwargs=actor,
        num_cpus=classify_cpus,
        num_gpus=gpu_share,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, most_classify)),
    )
    yield from classified.iter_rows()


def _take(row: Row, assembly: Assembly, tick: Tick) -> Outcome | None:
    shard = int(row["shard"])
    if row["unfinished"]:
        return assembly.fail(shard, str(row["unfinished"]))
    rows = _table(row["rows"])
    tick(rows)
    return assembly.add(shard, int(row["chunk"]), int(row["num_chunks"]), rows)


def bundle_files(path: Path) -> dict[str, bytes]:
    """A bundle as values, for nodes that do not see its directory."""
    names = [*read_json(path / MANIFEST)["files"], MANIFEST]
    return {name: (path / name).read_bytes() for name in names}


class PrepareChunk:
    """Stage one: a chunk's number to its pixels and unfinished rows."""

    def __init__(self, root: str, recipe: Recipe, kept: bytes) -> None:
        self._output = Output(Path(root))
        self._preparer = Preparer(recipe)
        self._kept = pa.ipc.read_schema(pa.py_buffer(kept))
        self._rows_a_chunk = rows_of_chunk(recipe.size_px)
        self._shard = (-1, pa.table({}))

    def __call__(self, row: Row) -> Row:
        shard = int(row["shard"])
        if self._shard[0] != shard:
            self._shard = (shard, pq.read_table(self._output.inputs(shard)))
        items = items_of(self._shard[1].slice(int(row["start"]), self._rows_a_chunk))
        (prepared,) = self._preparer.stream(iter([items]), self._kept)
        if isinstance(prepared, UnfinishedError):
            return {**row, "unfinished": prepared.message, "rows": b"", "pixels": b""}
        return {
            **row,
            "unfinished": "",
            "rows": _ipc(prepared.rows),
            "pixels": prepared.pixels.tobytes(),
        }


class ClassifyChunk:
    """Stage two: pixels to answers, by an actor that holds the network."""

    def __init__(
        self,
        bundle: Any,
        runtime: str,
        precision: str,
        views: str,
        options: RowOptions,
        kept: bytes,
    ) -> None:
        import ray

        from fer_ray.bundle.load import load_bundle
        from fer_ray.bundle.predictor import Predictor

        with tempfile.TemporaryDirectory(prefix="fer-ray-bundle-") as folder:
            for name, data in ray.get(bundle).items():
                place = Path(folder) / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            # What the driver chose, so that a job has one runtime.
            predictor = Predictor(
                load_bundle(Path(folder)), precision, runtime=runtime, views=views, num_threads=1
            )
        schema = pa.ipc.read_schema(pa.py_buffer(kept))
        self._classifier = Classifier(predictor, options, schema)
        self._size_px = predictor.source_px

    def __call__(self, row: Row) -> Row:
        told = {name: row[name] for name in ("shard", "chunk", "num_chunks", "unfinished")}
        if row["unfinished"]:
            return {**told, "rows": b""}
        flat = np.frombuffer(row["pixels"], np.uint8).copy()  # torch wants it writable
        pixels = flat.reshape(-1, self._size_px, self._size_px)
        rows = self._classifier.classify(Prepared(_table(row["rows"]), pixels))
        return {**told, "rows": _ipc(rows)}


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _table(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
