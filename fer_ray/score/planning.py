"""Which shards there are: the listing cut into slices, each written down before it is worked on.

A slice, once written, never changes: a resumed job takes the finished shards from the ledger, the
others from their files, and goes on listing after the last item written. So memory holds one slice,
and files that come or go meanwhile move no border.

Slices are small at first and grow, so that a small job has shards to lose and to resume, and a
large one has files of about 128 MB.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Any

from fer_ray.score.external_sort import last_of_equals
from fer_ray.score.items import Item, last_key, read_items, skipped_so_far, write_items
from fer_ray.score.listing import Listing
from fer_ray.score.output import Output
from fer_ray.store import read_json, write_json

FIRST_ROWS = 2_000
SHARDS_A_SIZE = 8
"""After so many shards their size doubles: 1 million images are 48 shards, 100 million 160."""
PART_BYTES = 128 * 1024 * 1024
ROW_BYTES = 128
"""Of a row on the disk without an embedding, measured on long paths."""


def rows_of_shard(number: int, num_features: int, fixed: int | None) -> int:
    """Items of a shard.

    Args:
        number: of the shard, from 0.
        num_features: floats of an embedding that each row holds too.
        fixed: the user's own size, or None.
    """
    if fixed is not None:
        return fixed
    largest = PART_BYTES // (ROW_BYTES + 4 * num_features)
    return int(min(FIRST_ROWS * 2 ** min(number // SHARDS_A_SIZE, 30), largest))


class Plan:
    """The shards of one snapshot of a job.

    Args:
        output: where slices are written down.
        listing: of the sources.
        first_shard: of this snapshot; earlier ones hold what is known already.
        num_features: see `rows_of_shard`.
        rows_a_shard: likewise.
    """

    def __init__(
        self,
        output: Output,
        listing: Listing,
        first_shard: int,
        num_features: int,
        rows_a_shard: int | None,
    ) -> None:
        self._output, self._listing = output, listing
        self.first_shard = first_shard
        self._num_features, self._rows_a_shard = num_features, rows_a_shard
        self.num_items: int | None = None
        """Of the whole snapshot, once the listing came to its end."""
        self.skipped: Counter[str] = Counter()

    def shards(self) -> Iterator[int]:
        """Shards without an entry in the ledger: those written down, then what is still listed."""
        finished = set(self._output.finished())
        planned = [n for n in self._output.planned() if n >= self.first_shard]
        if self._output.complete.is_file():
            self._read_complete()
        yield from (number for number in planned if number not in finished)
        if self.num_items is None:
            yield from self._list(planned)

    def _list(self, planned: list[int]) -> Iterator[int]:
        after, earlier, number = b"", Counter[str](), self.first_shard
        if planned:
            last = self._output.inputs(planned[-1])
            after, earlier, number = last_key(last), Counter(skipped_so_far(last)), planned[-1] + 1
        rows: list[Item] = []
        items = self._listing.items(after)
        if self.first_shard:
            items = new_or_changed(items, known_items(self._output, self.first_shard))
        for item in items:
            rows.append(item)
            if len(rows) == rows_of_shard(number, self._num_features, self._rows_a_shard):
                self._write(number, rows, earlier)
                yield number
                number, rows = number + 1, []
        if rows:
            self._write(number, rows, earlier)
            number += 1
        self.skipped = earlier + self._listing.skipped
        self._complete(number)
        if rows:
            yield number - 1

    def _write(self, number: int, rows: list[Item], earlier: Counter[str]) -> None:
        skipped = dict(earlier + self._listing.skipped_in_order)
        write_items(self._output.inputs(number), rows, self._listing.kept, skipped)

    def _complete(self, end: int) -> None:
        import pyarrow.parquet as pq

        counts = (
            pq.read_metadata(self._output.inputs(n)).num_rows for n in range(self.first_shard, end)
        )
        self.num_items = sum(counts)
        document: dict[str, Any] = {
            "first_shard": self.first_shard,
            "end_shard": end,
            "items": self.num_items,
            "skipped": dict(self.skipped),
        }
        write_json(self._output.complete, document)

    def _read_complete(self) -> None:
        document = read_json(self._output.complete)
        if document["first_shard"] == self.first_shard:
            self.num_items = int(document["items"])
            self.skipped = Counter(document["skipped"])


def known_items(output: Output, end_shard: int) -> Iterator[Item]:
    """Items of the shards before `end_shard`, in order; of several versions of one the newest."""
    streams = (_in_order(output, run) for run in _snapshots(output, end_shard))
    return last_of_equals(heapq.merge(*streams, key=lambda item: item.key))


def _snapshots(output: Output, end_shard: int) -> list[list[int]]:
    """Shards by snapshot: each begins with the shard named in the job's list."""
    firsts = [int(each["first_shard"]) for each in read_json(output.job)["snapshots"]]
    ends = [*firsts[1:], end_shard]
    return [list(range(a, min(b, end_shard))) for a, b in zip(firsts, ends, strict=True)]


def _in_order(output: Output, shards: list[int]) -> Iterator[Item]:
    for number in shards:
        yield from read_items(output.inputs(number))


def new_or_changed(items: Iterator[Item], known: Iterator[Item]) -> Iterator[Item]:
    """What is not known in its present version; both sorted, neither held.

    An item without size and version counts as changed only where it has got one since.
    """
    before = next(known, None)
    for item in items:
        while before is not None and before.key < item.key:
            before = next(known, None)
        known_as = None if before is None or before.path != item.path else before
        if known_as is None or _stamp(known_as) != _stamp(item):
            yield item


def _stamp(item: Item) -> tuple[int | None, str | None]:
    return item.size_bytes, item.version
