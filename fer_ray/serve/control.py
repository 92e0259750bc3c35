"""How `fer-ray update` reaches a running `fer-ray serve`: a Unix socket that only its user opens.

No port and no key: the directory belongs to the user and is closed to others, so the file system
decides who may change the model. One JSON line in, one out.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fer_ray.errors import BundleError, FerRayError, UserError

UPDATE_TIMEOUT_S = 300.0
_MAX_LINE_BYTES = 65_536


def runtime_directory() -> Path:
    """A directory of this user's own, for sockets and the like.

    Raises:
        FerRayError: someone else owns it, or can write to it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    parent = Path(base) if base and Path(base).is_dir() else Path(tempfile.gettempdir())
    path = parent / f"fer-ray-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise FerRayError(f"{path} must be a directory of this user's alone", "Remove it.")
    return path


def socket_path(port: int) -> Path:
    """Of the endpoint that listens on `port`."""
    return runtime_directory() / f"serve-{port}.sock"


class ControlSocket:
    """Listens in a thread of its own until closed.

    Args:
        port: of the endpoint.
        update: swaps the bundle; returns what is served now.
    """

    def __init__(self, port: int, update: Callable[[str | None], str]) -> None:
        self._path = socket_path(port)
        self._update = update
        self._path.unlink(missing_ok=True)  # of a process that was killed: the port was free
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen(4)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10.0)
                answer = self._answer(_read_line(connection))
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            document = json.loads(line)
            return {"served": self._update(document["bundle"])}
        except FerRayError as error:
            return {"error": error.message, "remedy": error.remedy, "exit_code": error.exit_code}
        except Exception as error:  # noqa: BLE001 - the other side is told; this one serves on
            return {"error": f"{type(error).__name__}: {error}", "remedy": None, "exit_code": 1}


def request_update(port: int, bundle: str | None) -> str:
    """Ask the endpoint on `port` for another bundle, and wait until it serves it.

    Args:
        port: of the endpoint on this machine.
        bundle: absolute directory of a bundle or run; None is the shipped model.

    Returns:
        the new bundle's title.

    Raises:
        UserError: no endpoint of this user's is there.
        BundleError: the bundle is refused; the former one serves on.
        FerRayError: the swap failed; the message says what is served.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(UPDATE_TIMEOUT_S)
        try:
            connection.connect(str(socket_path(port)))
        except OSError as error:
            raise UserError(
                f"no `fer-ray serve` of this user listens on port {port} of this machine",
                "Name its port with --port. What `serve deploy` started is updated by a changed "
                "`user_config` in its YAML.",
            ) from error
        connection.sendall(json.dumps({"bundle": bundle}).encode() + b"\n")
        line = _read_line(connection)
    if not line:
        raise FerRayError("the endpoint ended during the update")
    answer = json.loads(line)
    if "error" in answer:
        kind = BundleError if answer["exit_code"] == BundleError.exit_code else FerRayError
        raise kind(f"{answer['error']}\n  The former bundle serves on.", answer["remedy"])
    return str(answer["served"])


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
        chunk = connection.recv(4096)
        if not chunk:
            break
        line += chunk
    return line
