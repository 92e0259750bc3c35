"""How a search is asked to end in order: Ctrl-C, SIGTERM, or `fer-ray stop` from elsewhere.

All of them leave one file in the run. The driver looks at it and starts no further trial; each
trial looks at it when an epoch ends, writes its checkpoint and lets go.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from fer_ray.runs import RunDirectory
from fer_ray.store import read_json, write_json

BY_COMMAND = "fer-ray stop"
_LOOK_EVERY_S = 0.25


def request_stop(run: RunDirectory, by: str) -> None:
    """Ask the search that works on a run, here or elsewhere, to end in order."""
    write_json(run.stop_file, {"by": by, "time": time.time()})


class StopWatch:
    """Whether a search was asked to end, looked at a few times a second at most."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._looked = -_LOOK_EVERY_S
        self._is_asked = False

    @property
    def by(self) -> str | None:
        """Who asked: the name of a signal, or `fer-ray stop`."""
        return str(read_json(self._run.stop_file)["by"]) if self.is_asked else None

    @property
    def is_asked(self) -> bool:
        now = time.monotonic()
        if not self._is_asked and now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            self._is_asked = self._run.stop_file.exists()
        return self._is_asked


@contextlib.contextmanager
def signals_stop(run: RunDirectory, say: Callable[[str], None]) -> Iterator[None]:
    """Within, the first Ctrl-C or SIGTERM asks for an end in order, the second ends at once.

    Outside the main thread Python hands out no signals; nothing changes there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        request_stop(run, signal.Signals(number).name)
        say("stopping after the epochs under way; press Ctrl-C again to stop now")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
