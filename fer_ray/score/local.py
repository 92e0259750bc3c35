"""Shards in this process: decoding threads beside the network, one chunk flowing after another."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.errors import UnfinishedError
from fer_ray.score.classify import Classifier
from fer_ray.score.items import Item, items_of
from fer_ray.score.output import Output
from fer_ray.score.parts import PartWriter
from fer_ray.score.prepare import Prepared, Preparer
from fer_ray.score.transient import short


@dataclass(frozen=True)
class Finished:
    """A shard whose part is written.

    Attributes:
        entry: for the ledger.
    """

    shard: int
    entry: dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """A shard that a transient fault left undone.

    Attributes:
        reason: one line.
    """

    shard: int
    reason: str


Outcome = Finished | Unfinished
Tick = Callable[[pa.Table], None]
"""Told the rows of each chunk as it is done, for progress."""


class Parts(Protocol):
    """Opens the writer of a shard's part."""

    def __call__(self, shard: int) -> PartWriter: ...


def run_local(
    shards: Iterator[int],
    output: Output,
    preparer: Preparer,
    classifier: Classifier,
    parts: Parts,
    rows_a_chunk: int,
    tick: Tick,
) -> Iterator[Outcome]:
    """Score shards one after another.

    Args:
        shards: whose inputs files are written; taken one by one.
        output: the job's directory.
        preparer, classifier: the two halves of the work.
        parts: opens a part.
        rows_a_chunk: items decoded and classified at once; no row depends on it.
        tick: told each chunk's rows.
    """
    order: deque[tuple[int, int, int]] = deque()
    assembly = Assembly(output, parts)

    def chunks() -> Iterator[list[Item]]:
        for shard in shards:
            table = pq.read_table(output.inputs(shard))
            count = -(-table.num_rows // rows_a_chunk)
            for chunk in range(count):
                order.append((shard, chunk, count))
                yield items_of(table.slice(chunk * rows_a_chunk, rows_a_chunk))

    try:
        stream = preparer.stream(chunks(), classifier.kept)
        for rows in _classified(stream, classifier, preparer.recipe.num_threads):
            shard, chunk, count = order.popleft()
            if isinstance(rows, UnfinishedError):
                outcome = assembly.fail(shard, rows.message)
            else:
                tick(rows)
                outcome = assembly.add(shard, chunk, count, rows)
            if outcome is not None:
                yield outcome
    finally:
        assembly.abandon()


def _classified(
    stream: Iterator[Prepared | UnfinishedError], classifier: Classifier, num_threads: int
) -> Iterator[pa.Table | UnfinishedError]:
    """Rows of chunks in their order, several chunks classified at once."""
    waiting: deque[Future[pa.Table] | UnfinishedError] = deque()
    with (
        classifier.many(num_threads) as at_once,
        ThreadPoolExecutor(at_once) as pool,
        contextlib.closing(stream),  # type: ignore[type-var]
    ):
        for prepared in stream:
            if isinstance(prepared, UnfinishedError):
                waiting.append(prepared)
            else:
                waiting.append(pool.submit(classifier.classify, prepared))
            if len(waiting) > at_once:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(each: Future[pa.Table] | UnfinishedError) -> pa.Table | UnfinishedError:
    return each if isinstance(each, UnfinishedError) else each.result()


class Assembly:
    """Parts in the making: chunks of any shards in, finished or unfinished shards out.

    Args:
        output: the job's directory.
        parts: opens a part.
    """

    def __init__(self, output: Output, parts: Parts) -> None:
        self._output, self._parts = output, parts
        self._open: dict[int, PartWriter] = {}
        self._failed: set[int] = set()

    def add(self, shard: int, chunk: int, num_chunks: int, rows: pa.Table) -> Outcome | None:
        """Take a chunk; the shard's outcome where it was the last one, or it cannot be written."""
        if shard in self._failed:
            return None
        try:
            if shard not in self._open:
                self._open[shard] = self._parts(shard)
            writer = self._open[shard]
            writer.add(chunk, rows)
            if writer.num_written < num_chunks:
                return None
            size = writer.finish()
            entry = {"shard": shard, "bytes": size, **writer.counts.as_dict()}
            self._output.write_entry(entry)
        except OSError as error:
            return self.fail(shard, f"part {shard} cannot be written: {short(error)}")
        del self._open[shard]
        return Finished(shard, entry)

    def fail(self, shard: int, reason: str) -> Outcome | None:
        """Give a shard up; what still comes of it is dropped."""
        if shard in self._failed:
            return None
        self._failed.add(shard)
        writer = self._open.pop(shard, None)
        if writer is not None:
            writer.abandon()
        return Unfinished(shard, reason)

    def abandon(self) -> None:
        """Leave no half-written file behind."""
        for writer in self._open.values():
            writer.abandon()
        self._open.clear()
