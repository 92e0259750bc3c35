"""Reading what may be hostile: forward only, in bounded bites, with a bound on the ratio."""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from fer_ray.errors import DataError
from fer_ray.images.decode import MAX_BYTES

MAX_RATIO = 200
"""Unpacked over packed bytes; images barely shrink, pixels in text shrink to a third."""

SLACK_BYTES = 64 * 1024 * 1024
"""So much may be unpacked before the ratio of a whole stream counts."""

MAX_LINE_BYTES = 4 * 1024 * 1024
"""One line of a CSV: 1000 x 1000 pixels in text."""

_CHUNK_BYTES = 1024 * 1024
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,  # an encrypted member of a zip
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)


class BoundedReader:
    """A file that is read forward only; enough of one for `tarfile`.

    Args:
        file: what is read, already unpacked.
        packed: the file below it, for the ratio; None where that was checked before.
        place: named in errors.
    """

    def __init__(self, file: BinaryIO, packed: BinaryIO | None, place: str) -> None:
        self._file, self._packed, self._place = file, packed, place
        self._position = 0
        self.last = b""
        """What the last `read` gave."""

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes.

        Raises:
            DataError: more than 64 MiB at once, too high a ratio, or a broken stream.
        """
        if not 0 <= size <= MAX_BYTES + 1024:
            raise DataError(
                f"{self._place} wants {size:,} bytes in one piece; at most {MAX_BYTES:,} are read"
            )
        try:
            self.last = self._file.read(size)
        except _BROKEN as error:
            raise DataError(
                f"{self._place} cannot be read to its end: {error}",
                "It is damaged or cut off; get it again.",
            ) from error
        self._position += len(self.last)
        if self._packed is not None:
            limit = MAX_RATIO * self._packed.tell() + SLACK_BYTES
            if self._position > limit:
                raise DataError(
                    f"{self._place} unpacks to more than {MAX_RATIO} times its size "
                    f"({self._position:,} bytes so far)"
                )
        return self.last

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        """Go forward."""
        assert whence == 0, "tarfile seeks from the start"
        if position < self._position:
            raise DataError(f"{self._place} points back into itself")
        while self._position < position:
            if not self.read(min(_CHUNK_BYTES, position - self._position)):
                break
        return self._position

    def close(self) -> None:
        """Close what is read."""
        self._file.close()

    def read_to_end(self) -> None:
        """Pass over the rest, so that a checksum at the end is checked."""
        while self.read(_CHUNK_BYTES):
            pass


Line = tuple[bytes, bool]
"""A line without its end, and whether it had one (the last of a cut file has none)."""


def lines(file: BoundedReader, place: str) -> Iterator[Line]:
    """The lines of a text; closes it behind them.

    Raises:
        DataError: a line above `MAX_LINE_BYTES`.
    """
    with contextlib.closing(file):
        yield from _lines(file, place)


def _lines(file: BoundedReader, place: str) -> Iterator[Line]:
    rest = b""
    number = 0
    while chunk := file.read(_CHUNK_BYTES):
        whole = (rest + chunk).split(b"\n")
        rest = whole.pop()
        for line in whole:
            number += 1
            yield line.rstrip(b"\r"), True
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(
                f"{place} line {number + 1} has more than {MAX_LINE_BYTES:,} bytes: "
                "longer lines are not read"
            )
    if rest:
        yield rest.rstrip(b"\r"), False
