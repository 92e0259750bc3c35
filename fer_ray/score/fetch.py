"""The bytes of an item, from wherever it lies: a permanent fault is a value, a transient one waits.

| what happens | it is |
|---|---|
| no such file or object, HTTP 404 and 410, no such host | `missing` |
| not allowed, a folder, a FIFO, a name too long, circular links | `unreadable` |
| a redirect in circles or to no web address, other HTTP 4xx | `unreadable` |
| a damaged member of an archive | `unreadable` |
| all else: I/O errors, throttling, timeouts, resets, HTTP 5xx, 408, 429, credentials | transient |
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import stat
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from fer_ray import __version__
from fer_ray.errors import DataError, UnfinishedError
from fer_ray.images.decode import MAX_BYTES
from fer_ray.score.archives import Members
from fer_ray.score.items import Item, key_of, readable_path
from fer_ray.score.storage import address_in, filesystem_of
from fer_ray.score.transient import Patience, TransientError, patiently, short

HTTP_TIMEOUT_S = 30
_MISSING = (errno.ENOENT,)
_UNREADABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.EINVAL,
)


@dataclass(frozen=True)
class Fault:
    """A permanent fault of one image: it becomes a row.

    Attributes:
        error_type: a stable word: `empty`, `too_large`, `not_an_image`, `truncated`,
            `undecodable`, `unreadable` or `missing`.
        error: a short text.
    """

    error_type: str
    error: str


class Fetcher:
    """Reads items; used by many threads at once. `stopped` ends their waiting.

    Args:
        storages: bucket -> the source's address, with its keys and options.
        patience: with transient faults.
    """

    def __init__(self, storages: dict[str, str], patience: Patience) -> None:
        self._storages, self._patience = storages, patience
        self.stopped = threading.Event()
        self._containers = threading.Lock()
        self._members = Members()
        self._table: tuple[str, int, int, Any] = (
            "",
            0,
            0,
            None,
        )  # path and column, first row, end, images

    def fetch(self, item: Item) -> bytes | Fault:
        """All bytes of an item, or a little more than `MAX_BYTES` of a larger one.

        Raises:
            UnfinishedError: a transient fault did not pass.
        """
        with contextlib.suppress(OSError, TransientError):
            return self._once(item)
        place = readable_path(item.path)
        return patiently(lambda: self._once(item), self._patience, f"reading {place}", self.stopped)

    def _once(self, item: Item) -> bytes | Fault:
        if item.container is not None:
            return self._contained(item, item.container, str(item.member))
        if item.path.startswith("/"):
            return read_local(item.path)
        if item.path.lower().startswith(("http://", "https://")):
            return read_http(item.path)
        return self._object(item)

    def _object(self, item: Item) -> bytes | Fault:
        files, _ = filesystem_of(address_in(item.path, self._storages))
        try:
            with files.open_input_stream(item.path.partition("://")[2]) as stream:
                data: bytes = stream.read(min(item.size_bytes or MAX_BYTES, MAX_BYTES) + 1)
                return data
        except FileNotFoundError:
            return Fault("missing", "no such object")
        except IsADirectoryError:
            return Fault("unreadable", "a prefix, not an object")

    def _contained(self, item: Item, container: str, member: str) -> bytes | Fault:
        with self._containers:
            try:
                if "!/" in item.path:
                    return self._members.read(container, member)
                return self._cell(container, int(member))
            except (zipfile.BadZipFile, zlib.error, DataError, EOFError, KeyError) as error:
                return Fault("unreadable", f"in its archive: {short(error)}")
            except FileNotFoundError as error:
                raise UnfinishedError(f"{container} is gone", "Put it back.") from error

    def _cell(self, container: str, row: int) -> bytes | Fault:
        known, start, stop, images = self._table
        if known != container or not start <= row < stop:
            start, stop, images = _row_group(container, row)
            self._table = (container, start, stop, images)
        data = images[row - start].as_py()
        return data if data is not None else Fault("empty", "the cell is null")


def read_local(path: str) -> bytes | Fault:
    """A file's bytes; one that is no regular file is never waited for.

    Raises:
        OSError: a fault of the machine.
    """
    try:
        descriptor = os.open(key_of(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _MISSING:
            return Fault("missing", short(error))
        if error.errno in _UNREADABLE:
            return Fault("unreadable", short(error))
        raise
    except ValueError as error:
        return Fault("unreadable", short(error))  # a NUL in the name
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Fault("unreadable", "not a regular file")
        wanted = min(status.st_size, MAX_BYTES) + 1
        data = os.read(descriptor, wanted)
        while len(data) < min(status.st_size, wanted):
            more = os.read(descriptor, wanted - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


def read_http(url: str) -> bytes | Fault:
    """The body behind an address, after redirects.

    Raises:
        TransientError: another try may succeed.
    """
    quoted = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]", errors="surrogateescape")
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": f"fer-ray/{__version__}"})
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:
            data: bytes = response.read(MAX_BYTES + 1)
            length = response.headers.get("Content-Length")
            if length is not None and len(data) < min(int(length), MAX_BYTES):
                raise TransientError(f"{len(data)} of {length} bytes came")
            return data
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            return Fault("missing", f"HTTP {error.code}")
        # 3xx: a redirect in circles, or to something that is no web address.
        if 300 <= error.code < 500 and error.code not in (408, 425, 429):
            return Fault("unreadable", f"HTTP {error.code}")
        raise TransientError(f"HTTP {error.code}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror) and error.reason.errno == socket.EAI_NONAME:
            return Fault("missing", "no such host")
        raise TransientError(str(error.reason)) from error
    except (http.client.HTTPException, ValueError) as error:
        if isinstance(error, http.client.InvalidURL):
            return Fault("unreadable", "not a valid address")
        raise TransientError(short(error)) from error


def _row_group(container: str, row: int) -> tuple[int, int, Any]:
    """The images of the row group that holds a row: its first row, its end, its column."""
    path, _, column = container.rpartition("#")
    file = pq.ParquetFile(path)
    start = 0
    for number in range(file.num_row_groups):
        stop = start + file.metadata.row_group(number).num_rows
        if start <= row < stop:
            return start, stop, file.read_row_group(number, columns=[column]).column(0)
        start = stop
    raise UnfinishedError(f"{path} has no row {row} any more", "Was it changed?")
