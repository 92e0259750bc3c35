"""The files of a run as a trial's process sees them: in the run's directory, or in object storage.

With object storage a process works in a folder of its own. It copies in what an earlier process
left, and copies out what must outlive it.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fer_ray.bundle.manifest import MANIFEST
from fer_ray.cluster.object_folder import ObjectFolder
from fer_ray.runs import RunDirectory
from fer_ray.search.stopping import StopWatch
from fer_ray.store import is_remote

_LOOK_EVERY_S = 2.0


class RunFiles:
    """Files of a run that every node sees.

    Args:
        run: its directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._stop = StopWatch(run)

    @property
    def is_stop_asked(self) -> bool:
        """Whether the search was asked to end in order."""
        return self._stop.is_asked

    def copy_in(self, path: Path) -> bool:
        """Have a file, or a folder that ends in its manifest, as it was last put out.

        Gives whether it is there.
        """
        return path.exists()

    def copy_out(self, path: Path) -> None:
        """Let a file or a folder outlive this process."""

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)


class RemoteRunFiles(RunFiles):
    """Files of a run in object storage.

    Args:
        run: a directory of this process alone.
        folder: the run's.
    """

    def __init__(self, run: RunDirectory, folder: ObjectFolder) -> None:
        super().__init__(run)
        self._folder = folder
        self._looked, self._stops = -_LOOK_EVERY_S, False

    @property
    def is_stop_asked(self) -> bool:
        now = time.monotonic()
        if not self._stops and now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            self._stops = self._folder.exists(self._name(self.run.stop_file))
        return self._stops

    def _name(self, path: Path) -> str:
        return path.relative_to(self.run.path).as_posix()

    def copy_in(self, path: Path) -> bool:
        name = self._name(path)
        if self._folder.fetch(name, path):
            return True
        if not self._folder.exists(f"{name}/{MANIFEST}"):
            return False
        for part in self._folder.names(name):
            self._folder.fetch(part, self.run.path / part)
        return True

    def copy_out(self, path: Path) -> None:
        parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
        # The manifest last: its existence is the commit.
        for part in sorted(parts, key=lambda part: (part.name == MANIFEST, part)):
            self._folder.write(self._name(part), part.read_bytes())

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._folder.delete(self._name(path))


@contextlib.contextmanager
def run_files(run_path: str) -> Iterator[RunFiles]:
    """The files of a run, given by its directory or its address."""
    if not is_remote(run_path):
        yield RunFiles(RunDirectory(Path(run_path)))
        return
    with tempfile.TemporaryDirectory(prefix="fer-ray-") as scratch:
        yield RemoteRunFiles(RunDirectory(Path(scratch)), ObjectFolder(run_path))
