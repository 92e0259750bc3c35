"""Scoring at a size that no disk here holds: what the driver needs to list and to resume.

    python benchmarks/score_scale.py [--names 5000000] [--finished 100000000]

    resume   a ledger of 100 million finished images (shards as the plan cuts them, and of 20,000):
             reading it, finding what is left, adding up the totals
    listing  5 million names that a simulated file system hands out, 5,000 folders of 1,000; the
             network answers at once, so that the listing is what is measured: time to the first
             part, to the last name, and the driver's peak memory
    flat     the same names in one folder: sorted on the disk

Each runs in a process of its own. The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.labels import EXPRESSIONS
from fer_ray.score.folders import FolderSource
from fer_ray.score.items import Item, write_items
from fer_ray.score.listing import Listing
from fer_ray.score.output import Output
from fer_ray.score.parts import Counts
from fer_ray.score.planning import Plan, rows_of_shard
from fer_ray.store import write_json

CASES = ("resume", "resume-small", "listing", "flat")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", type=int, default=5_000_000)
    parser.add_argument("--finished", type=int, default=100_000_000)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run(arguments.case, arguments)))
        return
    results = {}
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--names", str(arguments.names)]
        command += ["--finished", str(arguments.finished)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[case] = json.loads(done.stdout.splitlines()[-1])
        print(case, results[case])
    print(json.dumps(results))


def run(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fer-ray-scale-") as folder:
        output = Output(Path(folder))
        if case.startswith("resume"):
            fixed = 20_000 if case == "resume-small" else None
            found = resumed(output, arguments.finished, fixed)
        else:
            found = listed(output, arguments.names, flat=case == "flat")
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found


# --- resume ---------------------------------------------------------------------------------------


def resumed(output: Output, images: int, fixed: int | None) -> dict[str, Any]:
    """Every shard but three is in the ledger; the listing is done."""
    sizes = []
    while sum(sizes) < images:
        sizes.append(min(rows_of_shard(len(sizes), 0, fixed), images - sum(sizes)))
    counts = Counts(EXPRESSIONS)
    for shard, size in enumerate(sizes):
        write_items(output.inputs(shard), [Item(f"/a/{shard}.jpg")], pa.schema([]), {})
        entry = {"shard": shard, "bytes": 100 * size, **counts.as_dict(), "rows": size}
        write_json(output.entry(shard), entry)
    left = [3, len(sizes) // 2, len(sizes) - 1]
    for shard in left:
        output.entry(shard).unlink()
    write_json(output.complete, {"first_shard": 0, "items": images, "skipped": {}})
    started = time.perf_counter()
    plan = Plan(output, Listing([], pa.schema([]), []), 0, 0, fixed)
    assert list(plan.shards()) == left
    seconds_plan = time.perf_counter() - started
    totals = Counts(EXPRESSIONS)
    for entry in output.entries():
        totals.add_entry(entry)
    assert totals.rows == images - sum(sizes[shard] for shard in left)
    return {
        "shards": len(sizes),
        "plan_s": round(seconds_plan, 3),
        "totals_s": round(time.perf_counter() - started - seconds_plan, 3),
    }


# --- listing --------------------------------------------------------------------------------------


@dataclass
class Entry:
    """What `os.scandir` gives, made up."""

    name: bytes
    folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self.folder

    def stat(self) -> os.stat_result:
        return os.stat_result((0o100644, 1, 1, 1, 0, 0, 2048, 0, 1_700_000_000, 0))


def simulated(names: int, *, flat: bool) -> Any:
    """A scandir over `names` files, in no order."""

    @contextlib.contextmanager
    def scan(folder: bytes) -> Iterator[Iterator[Entry]]:
        if flat:
            yield (Entry(b"%09d-face.jpg" % (n * 7919 % names), False) for n in range(names))
        elif folder == b"/data/":
            yield (Entry(b"%06d" % n, True) for n in reversed(range(names // 1000)))
        else:
            yield (Entry(b"%06d-face.jpg" % n, False) for n in reversed(range(1000)))

    return scan


def listed(output: Output, names: int, *, flat: bool) -> dict[str, Any]:
    """List, cut into shards, and write a part for each as soon as it is planned."""
    source = FolderSource("/data", simulated(names, flat=flat))
    plan = Plan(output, Listing([source], pa.schema([]), []), 0, 0, None)
    started = time.perf_counter()
    first_s = 0.0
    rows: Counter[str] = Counter()
    for shard in plan.shards():
        paths = pq.read_table(output.inputs(shard), columns=["path"])
        scores = pa.array(np.zeros(len(paths), np.float32))
        pq.write_table(paths.append_column("score", scores), output.part(shard))
        rows["rows"] += len(paths)
        first_s = first_s or time.perf_counter() - started
    assert rows["rows"] == plan.num_items == names
    return {
        "names": names,
        "first_part_s": round(first_s, 2),
        "all_s": round(time.perf_counter() - started, 1),
        "shards": len(output.planned()),
    }


if __name__ == "__main__":
    main()
