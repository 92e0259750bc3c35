"""Folders and single files as sources: a walk in the order of whole paths, in bounded memory.

What is taken and what is passed over:

    regular files and links to them   taken when their names end like an image's
    links that lead nowhere           likewise; they become rows (`missing`)
    links to folders                  not followed, so there are no circles (`link_to_folder`)
    hidden names (.x)                 passed over, folders with all they hold (`hidden`)
    FIFOs, sockets, devices           passed over: reading could wait for ever (`special`)
    other names                       passed over (`other_name`)
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from fer_ray.errors import UnfinishedError
from fer_ray.images.decode import SUFFIXES
from fer_ray.score.external_sort import sorted_unique
from fer_ray.score.items import Item, key_of, path_of, readable_path

_SUFFIXES = tuple(suffix.encode() for suffix in SUFFIXES)
_FOLDER = "folder"
_HELD_NAMES = 250_000
"""A folder with more entries is sorted on the disk."""

Scan = Callable[[bytes], "contextlib.AbstractContextManager[Iterator[os.DirEntry[bytes]]]"]
"""As `os.scandir`."""


class Source(Protocol):
    """Something that lists items in the order of their keys.

    Attributes:
        skipped: what was passed over so far, by reason.
        rescans: reads itself from its start however late it is to begin, and counts likewise.
    """

    skipped: Counter[str]
    rescans: bool

    def items(self, after: bytes) -> Iterator[Item]:
        """Items whose key is above `after`."""
        ...


class FolderSource:
    """All images below a folder."""

    rescans = False

    def __init__(self, root: str, scan: Scan | None = None) -> None:
        self.root = root
        self.skipped: Counter[str] = Counter()
        self._scan: Scan = scan or os.scandir

    def items(self, after: bytes) -> Iterator[Item]:
        yield from self._walk(key_of(self.root).rstrip(b"/") + b"/", after)

    def _walk(self, folder: bytes, after: bytes) -> Iterator[Item]:
        """A folder's items; entries are ordered as their paths are: folders with their slash."""
        for item in self._entries(folder, after):
            if item.member is None:
                yield item
            elif item.member == _FOLDER:
                yield from self._walk(key_of(item.path), after)
            else:
                # Counted in its place, so that a listing that is continued counts each once.
                self.skipped[item.member] += 1

    def _entries(self, folder: bytes, after: bytes) -> Iterator[Item]:
        """What a folder holds, sorted; all but files to take are marked by `member`."""
        try:
            with self._scan(folder) as entries:
                found = (_entry(folder, entry, after) for entry in entries)
                wanted = (item for item in found if item is not None)
                yield from sorted_unique(wanted, _HELD_NAMES)
        except (FileNotFoundError, NotADirectoryError):
            return  # removed since its parent was listed
        except OSError as error:
            name = readable_path(path_of(folder))
            raise UnfinishedError(
                f"the folder {name} cannot be listed: {error.strerror or error}",
                "Make it readable, or give the folders beside it as sources.",
            ) from error


def _entry(folder: bytes, entry: os.DirEntry[bytes], after: bytes) -> Item | None:
    """An entry as an item; None where it was listed before."""
    name = entry.name
    path = folder + name
    is_folder = entry.is_dir(follow_symlinks=False)
    if is_folder and not name.startswith(b"."):
        inside = path + b"/"
        if inside <= after and not after.startswith(inside):
            return None
        return Item(path_of(inside), member=_FOLDER)
    if path <= after:
        return None
    if name.startswith(b"."):
        return Item(path_of(path), member="hidden")
    if not is_image_name(name):
        return Item(path_of(path), member="other_name")
    try:
        status = entry.stat()
    except OSError:
        return Item(path_of(path))  # a broken link, or removed: its row will say so
    if stat.S_ISDIR(status.st_mode):
        return Item(path_of(path), member="link_to_folder")
    if not stat.S_ISREG(status.st_mode):
        return Item(path_of(path), member="special")
    return Item(path_of(path), status.st_size, str(status.st_mtime_ns))


class FileSource:
    """One file that was named: taken whatever its name."""

    rescans = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()

    def items(self, after: bytes) -> Iterator[Item]:
        if key_of(self.path) > after:
            yield local_item(self.path)


def local_item(path: str) -> Item:
    """An item of a local path with its size and time of change, where it is there."""
    try:
        status = os.stat(key_of(path))  # noqa: PTH116 - a path may hold any bytes
    except (OSError, ValueError):
        return Item(path)
    return Item(path, status.st_size, str(status.st_mtime_ns))


def is_image_name(name: bytes) -> bool:
    return name.lower().endswith(_SUFFIXES)
