"""A job's directory, and who may write into it.

    _job.json                 what is scored with what; written first, compared by --resume
    _inputs/00000.parquet     the items of each shard; written before the shard is worked on
    _inputs/_complete.json    the listing came to its end
    part-00000.parquet        the rows of a shard, written atomically
    _ledger/00000.json        the shard is finished, with its counts
    _manifest.json            every part with its rows and bytes
    _stats.json               totals
    _SUCCESS                  the job is whole; last

Names that begin with `_` or `.` are passed over by pandas, pyarrow, DuckDB's globs and Spark.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray.errors import OutputExistsError, UserError
from fer_ray.store import read_json, require_absent, require_on_disk, write_json

JOB = "_job.json"
INPUTS = "_inputs"
COMPLETE = "_complete.json"
LEDGER = "_ledger"
MANIFEST = "_manifest.json"
STATS = "_stats.json"
REPORT = "_report.html"
SUCCESS = "_SUCCESS"
STDIN_COPY = "_stdin.list"
_LOCK = ".lock"


@dataclass(frozen=True)
class Output:
    """Paths of a job's directory."""

    root: Path

    @property
    def job(self) -> Path:
        return self.root / JOB

    @property
    def success(self) -> Path:
        return self.root / SUCCESS

    @property
    def stats(self) -> Path:
        return self.root / STATS

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST

    @property
    def report(self) -> Path:
        return self.root / REPORT

    @property
    def complete(self) -> Path:
        return self.root / INPUTS / COMPLETE

    @property
    def stdin_copy(self) -> Path:
        return self.root / INPUTS / STDIN_COPY

    def inputs(self, shard: int) -> Path:
        return self.root / INPUTS / f"{shard:05d}.parquet"

    def part(self, shard: int) -> Path:
        return self.root / f"part-{shard:05d}.parquet"

    def entry(self, shard: int) -> Path:
        return self.root / LEDGER / f"{shard:05d}.json"

    def planned(self) -> list[int]:
        """Shards whose items are written down, in order."""
        return _numbers(self.root / INPUTS, ".parquet")

    def finished(self) -> list[int]:
        """Shards of the ledger, in order."""
        return _numbers(self.root / LEDGER, ".json")

    def entries(self) -> Iterator[dict[str, Any]]:
        """The ledger, in the order of shards."""
        for shard in self.finished():
            yield json.loads(self.entry(shard).read_bytes())

    def write_entry(self, entry: dict[str, Any]) -> None:
        write_json(self.entry(int(entry["shard"])), entry)

    def delete(self) -> None:
        """Delete what a job writes and nothing else; `_SUCCESS` first, so that none looks whole."""
        for name in (SUCCESS, STATS, MANIFEST, REPORT):
            (self.root / name).unlink(missing_ok=True)
        for part in self.root.glob("part-*.parquet"):
            part.unlink()
        shutil.rmtree(self.root / LEDGER, ignore_errors=True)
        shutil.rmtree(self.root / INPUTS, ignore_errors=True)
        self.sweep()
        (self.root / JOB).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete half-written files that a killed process left."""
        for folder in (self.root, self.root / INPUTS, self.root / LEDGER):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)


def _numbers(folder: Path, suffix: str) -> list[int]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if stem.isdigit())


@contextlib.contextmanager
def held(output: Output) -> Iterator[None]:
    """Be the only job at work in a directory; a killed process lets go by itself.

    Raises:
        OutputExistsError: another process is at work there.
        UserError: no path, but an address in object storage.
    """
    require_on_disk(output.root)
    if output.root.exists() and not output.root.is_dir():
        raise OutputExistsError(f"{output.root} is not a directory", "Choose another --out.")
    output.root.mkdir(parents=True, exist_ok=True)
    path = output.root / _LOCK
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino != os.fstat(descriptor).st_ino:  # noqa: PTH116
                raise BlockingIOError  # its holder ended and deleted it just now
        except OSError as error:
            raise OutputExistsError(
                f"another process is scoring into {output.root}", "Wait for it, or end it."
            ) from error
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def require_free(output: Output, overwrite: bool) -> None:
    """A new job wants an empty place; with `overwrite`, an earlier job's is emptied.

    Raises:
        OutputExistsError: something is there that is not to be deleted.
    """
    root = output.root
    found = _holds_something(root)
    if overwrite and found:
        if not output.job.is_file():
            raise OutputExistsError(
                f"{root} holds files that are not a scoring job's", "Choose another --out."
            )
        output.delete()
        found = _holds_something(root)
    if found:
        remedy = "Choose another --out, or use --overwrite."
        if output.job.is_file():
            done = output.success.is_file()
            remedy = "Choose another --out, or use --overwrite" + (
                " or --incremental." if done else ", or go on with --resume."
            )
        require_absent(root, "the output", remedy)


def _holds_something(root: Path) -> bool:
    """Whether there is anything but the lock and what a job killed at its start left."""
    return any(
        path.name != _LOCK and not (path.name.startswith(f".{JOB}.") and path.suffix == ".tmp")
        for path in root.iterdir()
    )


def began(output: Output) -> bool:
    """Whether there is a job; one killed before its first file was whole had not begun.

    Raises:
        UserError: something else is there, or nothing was.
    """
    if not output.job.is_file() and (
        _holds_something(output.root) or not list(output.root.glob(f".{JOB}.*.tmp"))
    ):
        raise UserError(
            f"{output.root} holds no scoring job", "Leave --resume or --incremental away."
        )
    return output.job.is_file()


def read_job(output: Output) -> dict[str, Any]:
    """`_job.json`."""
    job: dict[str, Any] = read_json(output.job)
    return job
