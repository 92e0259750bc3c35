"""The access log: one JSON line a request, written in bulk. Never an image, never a key."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import deque
from pathlib import Path
from typing import Any

FLUSH_EVERY_S = 0.5
MAX_WAITING = 100_000
"""Lines kept while the disk does not take them; the oldest go first."""

log = logging.getLogger("ray.serve.fer_ray")


class AccessLog:
    """Appends to a file from a thread of its own, so that no request waits for a disk.

    The file is opened for each flush: it may be renamed or removed (logrotate) at any time. A line
    is written whole, so replicas may share a file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: deque[dict[str, Any]] = deque(maxlen=MAX_WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(self, line: dict[str, Any]) -> None:
        """Take one request's facts; values that JSON knows."""
        self._lines.append(line)

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_EVERY_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        taken: list[dict[str, Any]] = []
        with contextlib.suppress(IndexError):
            while len(taken) < MAX_WAITING:
                taken.append(self._lines.popleft())
        if not taken:
            return
        text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in taken)
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(text.encode())
        except OSError:
            log.exception("the access log %s cannot be written", self._path)
