"""A run in object storage, as the process that drives it and those that look at it have it.

The driver works on a directory of its own, the mirror: `study.db` is SQLite and needs a disk. What
changes there is copied out after each trial and every half minute. Checkpoints and bundles never
pass through here on their way out: the trials put them into the storage themselves, so whichever
machine dies, another one can go on. `best` is `best.json` there: `{"bundle": "bundles/7"}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from fer_ray.bundle.manifest import MANIFEST
from fer_ray.cluster.object_folder import ObjectFolder
from fer_ray.errors import OutputExistsError, UserError
from fer_ray.runs import RunDirectory
from fer_ray.search.live import LiveTrial
from fer_ray.store import is_remote, remove_tree, swap_symlink

_PUSH_EVERY_S = 30.0
_LOOK_EVERY_S = 1.0
DRIVER = "driver.json"
_DRIVER_DEAD_S = 120.0
"""A driver on another machine that has not shown itself for so long is taken for dead."""
_KEPT_HERE = ("ray", "best", "stop.json", "study.db-journal")


class Mirror:
    """The local side of a run in object storage.

    Args:
        uri: the run's address.
        kind: `runs` for the driver, `seen` for those that only look.
    """

    def __init__(self, uri: str, kind: str = "runs") -> None:
        self.folder = ObjectFolder(uri.rstrip("/"))
        digest = hashlib.sha256(self.folder.name.encode()).hexdigest()[:24]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.run = RunDirectory(cache / "fer-ray" / kind / digest, self.folder.name)
        self._out: dict[str, tuple[int, int]] = {}
        self._pushed = self._looked = 0.0
        self._is_due = False
        self._best: str | None = None
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def require_absent(self) -> None:
        """Refuse to overwrite a run; forget what one that was deleted left here.

        Raises:
            OutputExistsError: there is one.
        """
        if self.folder.exists("run.json"):
            raise OutputExistsError(
                f"the run {self.folder.name} already exists",
                f"Choose another --out, or go on with it: fer-ray resume {self.folder.name}",
            )
        if self.run.is_worked_on():
            raise UserError(f"another process works on {self.folder.name}")
        shutil.rmtree(self.run.path, ignore_errors=True)

    def pull(self) -> None:
        """Have here what is there, but for checkpoints, which the trials fetch themselves.

        Raises:
            UserError: no such run.
        """
        if not self.folder.exists("run.json"):
            raise UserError(f"{self.folder.name} is not a run: it has no run.json")
        path = self.run.path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Of a driver that was killed here; SQLite would roll the fetched file back by it.
        (path / "study.db-journal").unlink(missing_ok=True)
        here_only = (DRIVER, "best.json")
        names = [n for n in self.folder.names() if _is_mirrored(n) and n not in here_only]
        for name in names:
            is_bundle = name.startswith("bundles/")
            if not (is_bundle and (path / name).is_file()):  # bundles never change
                self.folder.fetch(name, path / name)
            self._out[name] = _stamp(path / name)
        for bundle in (path / "bundles").glob("[0-9]*"):
            if not any(name.startswith(f"bundles/{bundle.name}/") for name in names):
                remove_tree(bundle)
        best = self.folder.read("best.json")
        if best is None:
            self.run.best.unlink(missing_ok=True)
        else:
            swap_symlink(self.run.best, str(json.loads(best)["bundle"]))

    def require_alone(self) -> None:
        """Refuse to drive a run that another machine drives.

        Raises:
            UserError: its driver has shown itself lately.
        """
        data = self.folder.read(DRIVER)
        driver = json.loads(data) if data is not None else None
        if driver is None or driver["host"] == socket.gethostname():
            return  # on this machine the lock tells
        age_s = time.time() - driver["time"]
        if age_s < _DRIVER_DEAD_S:
            raise UserError(
                f"{driver['host']} works on {self.folder.name}, or was killed {age_s:.0f} s ago",
                f"Stop it: fer-ray stop {self.folder.name}; or wait two minutes.",
            )

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """Show that this process drives the run; at its end put everything out."""
        self.push()
        try:
            yield
        finally:
            self.push()
            self.folder.delete(DRIVER)

    def begin_session(self, known: dict[int, bool]) -> None:
        """Clear what a killed driver would have: a stop that was asked for, what ended trials left,
        and those that began within its last second, which the study does not know.

        Args:
            known: trials of the study -> whether they have ended.
        """
        self.folder.delete("stop.json")
        for name in self.folder.names("trials"):
            _, number, file = name.split("/", 2)
            if file == "checkpoint.safetensors" and known.get(int(number), True):
                self.folder.delete(name)
        for name in reversed(self.folder.names("bundles")):
            number = name.split("/")[1].split("-")[0]
            if int(number) not in known:
                self.folder.delete(name)
                remove_tree(self.run.bundle(int(number)))

    def fetch_bundle(self, number: int) -> None:
        """Have the bundle that a trial has just put out."""
        bundle = self.run.bundle(number)
        for name in self.folder.names(f"bundles/{number}"):
            self.folder.fetch(name, self.run.path / name)
            self._out[name] = _stamp(bundle / Path(name).relative_to(f"bundles/{number}"))

    def fetch_checkpoint(self, trials: list[LiveTrial]) -> None:
        """Have the checkpoints of trials that have not ended."""
        for trial in trials:
            if trial.ended is None:
                path = self.run.checkpoint(trial.number)
                self.folder.fetch(path.relative_to(self.run.path).as_posix(), path)

    def fetch(self, path: Path) -> None:
        """Have one file that a worker has put out."""
        name = path.relative_to(self.run.path).as_posix()
        if self.folder.fetch(name, path):
            self._out[name] = _stamp(path)

    def take_in(self, trial: LiveTrial) -> None:
        """A trial began, reported or ended: have what it left; the next tick tells of it."""
        if trial.number not in self._begun:
            self._begun.add(trial.number)
            self._is_due = True
        if trial.ended is None:
            return
        self._is_due = True
        if trial.bundle_id is not None and not self.run.bundle(trial.number).is_dir():
            self.fetch_bundle(trial.number)
        self._ended.add(trial.number)

    def tick(self) -> None:
        """Called often: carry a stop either way, put out what is due."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        stop = self.run.stop_file
        if stop.is_file():
            if "stop.json" not in self._out:
                self._out["stop.json"] = (0, 0)
                self.folder.write("stop.json", stop.read_bytes())
        elif self.folder.fetch("stop.json", stop):
            self._out["stop.json"] = (0, 0)
        if self._is_due or now - self._pushed >= _PUSH_EVERY_S:
            self.push()

    def push(self) -> None:
        """Put out what has changed, and delete there what is gone here; the study first."""
        self._is_due, self._pushed = False, time.monotonic()
        path = self.run.path
        found = {
            file.relative_to(path).as_posix(): file
            for file in path.rglob("*")
            if file.is_file() and not file.is_symlink()
        }
        found = {name: file for name, file in found.items() if _is_mirrored(name)}
        for name in sorted(found, key=_order):
            with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
                stamp = _stamp(found[name])
                if self._out.get(name) != stamp:
                    data = (
                        _snapshot(found[name]) if name == "study.db" else found[name].read_bytes()
                    )
                    self.folder.write(name, data)
                    self._out[name] = stamp
        self._push_best()
        gone = [name for name in self._out if name not in found and name != "stop.json"]
        for name in sorted(gone, key=_order, reverse=True):
            self.folder.delete(name)
            del self._out[name]
        while self._ended:  # the study says so by now: nobody goes on with them
            self.folder.delete(f"trials/{self._ended.pop()}/checkpoint.safetensors")
        driver = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        self.folder.write(DRIVER, json.dumps(driver).encode())

    def _push_best(self) -> None:
        if not self.run.best.is_symlink():
            return
        target = str(self.run.best.readlink())
        if target != self._best:
            self.folder.write("best.json", json.dumps({"bundle": target}).encode())
            self._best = target


def _is_mirrored(name: str) -> bool:
    """Whether a file is copied between the two sides."""
    first, last = name.split("/", 1)[0], name.rsplit("/", 1)[-1]
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not (hidden or first in _KEPT_HERE or last.endswith("checkpoint.safetensors"))


def _order(name: str) -> tuple[int, str]:
    """The study first, a bundle's manifest after its other files."""
    return (0 if name == "study.db" else 2 if name.endswith(f"/{MANIFEST}") else 1, name)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _snapshot(path: Path) -> bytes:
    """One moment of an SQLite file that is being written."""
    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60.0)
    copy = sqlite3.connect(":memory:")
    try:
        source.backup(copy)
        return copy.serialize()
    finally:
        copy.close()
        source.close()


@contextlib.contextmanager
def page_put_out(mirror: Mirror | None) -> Iterator[None]:
    """Whatever happens within, put out the page that was written at its end."""
    try:
        yield
    finally:
        page = mirror.run.path / "report.html" if mirror is not None else None
        if mirror is not None and page is not None and page.is_file():
            mirror.folder.write(page.name, page.read_bytes())


def request_remote_stop(uri: str, by: str) -> None:
    """Ask the search that works on a run in object storage to end in order.

    Raises:
        UserError: no such run, or nothing works on it.
    """
    folder = ObjectFolder(uri.rstrip("/"))
    data = folder.read(DRIVER)
    if data is None or time.time() - json.loads(data)["time"] > _DRIVER_DEAD_S:
        raise UserError(
            f"nothing works on {folder.name}", f"Go on with it: fer-ray resume {folder.name}"
        )
    folder.write("stop.json", json.dumps({"by": by, "time": time.time()}).encode())


def local_run(place: str | Path) -> Path:
    """The directory of a run: itself, or a copy of one in object storage as it is now.

    Raises:
        UserError: there is no such run.
    """
    if not is_remote(str(place)):
        return Path(place)
    mirror = Mirror(str(place), "seen")
    mirror.pull()
    return mirror.run.path
