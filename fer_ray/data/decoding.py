"""Records to pixels, large images on all cores, in the order of the records.

Pillow lets other threads run while it decodes, which pays for photographs. FER2013's own 48-pixel
files are mostly Python around the decoder: threads only fight for the interpreter over them, so
small payloads are decoded in place.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

from fer_ray.data.sources.record import Pixels, Record
from fer_ray.errors import DecodeError

_RECORDS_A_CHUNK = 32
_BYTES_A_CHUNK = 16 * 1024 * 1024
_SMALL_BYTES = 16 * 1024
"""Mean payload below which a chunk is decoded in place."""

Decoded = tuple[Record, Pixels | None, str | None]
"""A record, and either its pixels or its fault."""


@contextmanager
def decoded(records: Iterable[Record], size_px: int) -> Iterator[Iterator[Decoded]]:
    """Decode records, a bounded number ahead."""
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    # Each decode silences Pillow's warnings for itself, which threads undo in any order: this
    # outer guard puts the filters back as they were.
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool,
        closing(_ahead(records, size_px, pool, num_threads)) as results,
    ):
        yield results


def _ahead(
    records: Iterable[Record], size_px: int, pool: ThreadPoolExecutor, num_threads: int
) -> Generator[Decoded, None, None]:
    waiting: deque[Future[list[Decoded]]] = deque()
    for chunk in _chunks(records):
        small = sum(len(record.payload) for record in chunk) < _SMALL_BYTES * len(chunk)
        if small:
            while waiting:
                yield from waiting.popleft().result()
            yield from _decode(chunk, size_px)
            continue
        waiting.append(pool.submit(_decode, chunk, size_px))
        if len(waiting) > num_threads:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    num_bytes = 0
    for record in records:
        chunk.append(record)
        num_bytes += len(record.payload)
        if len(chunk) >= _RECORDS_A_CHUNK or num_bytes >= _BYTES_A_CHUNK:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _decode(chunk: list[Record], size_px: int) -> list[Decoded]:
    found: list[Decoded] = []
    for record in chunk:
        if record.fault is not None:
            found.append((record, None, record.fault))
            continue
        try:
            found.append((record, record.decode(record.payload, size_px), None))
        except DecodeError as error:
            found.append((record, None, error.message))
    return found
