"""Sorting more items than memory should hold: sorted runs on the disk, merged.

A run is a text file, one JSON list a line; nothing is pickled. Items that fit one run never touch
the disk.
"""

from __future__ import annotations

import heapq
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fer_ray.score.items import Item

ITEMS_A_RUN = 250_000
"""About 100 MB."""


def sorted_unique(items: Iterable[Item], run_length: int | None = None) -> Iterator[Item]:
    """Items in the order of their keys, each path once (of equal paths the last one given).

    Args:
        items: any order.
        run_length: items held at once; `ITEMS_A_RUN` where it is None.
    """
    limit = run_length or ITEMS_A_RUN
    run: list[Item] = []
    folder = Path(tempfile.mkdtemp(prefix="fer-ray-sort-"))
    try:
        runs: list[Path] = []
        for item in items:
            run.append(item)
            if len(run) >= limit:
                runs.append(_spill(run, folder / f"{len(runs):06d}.jsonl"))
                run = []
        run.sort(key=lambda item: item.key)
        # Runs are merged in their order: of equal keys the later run's comes last.
        streams = [*(_read(path) for path in runs), iter(run)]
        merged = heapq.merge(*streams, key=lambda item: item.key) if runs else iter(run)
        yield from last_of_equals(merged)
    finally:  # also of a listing that nobody reads to its end
        shutil.rmtree(folder, ignore_errors=True)


def last_of_equals(items: Iterable[Item]) -> Iterator[Item]:
    """Of neighbours with one path, the last."""
    before: Item | None = None
    for item in items:
        if before is not None and before.path != item.path:
            yield before
        before = item
    if before is not None:
        yield before


def _spill(run: list[Item], path: Path) -> Path:
    run.sort(key=lambda item: item.key)
    with path.open("w", encoding="ascii") as file:
        for item in run:
            file.write(
                json.dumps(
                    [
                        item.path,
                        item.size_bytes,
                        item.version,
                        item.container,
                        item.member,
                        item.kept,
                    ]
                )
            )
            file.write("\n")
    return path


def _read(path: Path) -> Iterator[Item]:
    with path.open(encoding="ascii") as file:
        for line in file:
            name, size, version, container, member, kept = json.loads(line)
            yield Item(name, size, version, container, member, tuple(kept))
