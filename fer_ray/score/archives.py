"""Zip and tar archives as sources. Nothing is extracted; a member is `ARCHIVE!/member`.

A tar's members are read at their offsets. A packed tar has none, so it is unpacked once into a
temporary file (a process), within the bounds that imports have too. Limits and refusals are those
of `fer_ray.data.sources.archives`.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from fer_ray.data.sources.archives import MAX_MEMBERS, zip_members
from fer_ray.data.sources.bounded import BoundedReader
from fer_ray.errors import DataError, UserError
from fer_ray.images.decode import MAX_BYTES
from fer_ray.score.external_sort import sorted_unique
from fer_ray.score.folders import is_image_name
from fer_ray.score.items import Item, key_of

ZIP = (".zip",)
PACKED_TAR = (".tar.gz", ".tgz")
ARCHIVES = (*ZIP, ".tar", *PACKED_TAR)
_BLOCK_BYTES = 1024 * 1024


class ArchiveSource:
    """The images of one archive.

    Raises:
        UserError: it lies in object storage.
    """

    rescans = True

    def __init__(self, path: str) -> None:
        if "://" in path:
            raise UserError(
                f"{path} is an archive in object storage; archives are read from a disk",
                "Copy it first.",
            )
        self.path = path
        self.skipped: Counter[str] = Counter()

    def items(self, after: bytes) -> Iterator[Item]:
        members = self._zip() if self.path.lower().endswith(ZIP) else self._tar()
        yield from (item for item in sorted_unique(members) if item.key > after)

    def _zip(self) -> Iterator[Item]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in zip_members(archive, Path(self.path)):
                    if self._wanted(member.name):
                        yield self._item(member.name, member.name, None)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{self.path} is no whole zip archive: {error}") from error

    def _tar(self) -> Iterator[Item]:
        number = 0
        try:
            with tarfile.open(plain_tar(self.path), "r:", errors="surrogateescape") as archive:
                while (member := archive.next()) is not None:
                    archive.__dict__["members"].clear()  # else it remembers every member
                    number += 1
                    if number > MAX_MEMBERS:
                        raise DataError(f"{self.path} has more than {MAX_MEMBERS:,} members")
                    if member.isdir():
                        continue
                    if not member.isreg() or member.sparse is not None:
                        self.skipped["special"] += 1
                    elif self._wanted(member.name):
                        place = f"{member.offset_data}:{member.size}"
                        yield self._item(member.name, place, member.size)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise DataError(f"{self.path} is no whole tar archive: {error}") from error

    def _wanted(self, name: str) -> bool:
        if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part):
            self.skipped["hidden"] += 1
            return False
        if not is_image_name(key_of(name)):
            self.skipped["other_name"] += 1
            return False
        return True

    def _item(self, name: str, member: str, size: int | None) -> Item:
        version = str(os.stat(self.path).st_mtime_ns)  # noqa: PTH116
        return Item(f"{self.path}!/{name}", size, version, self.path, member)


class Members:
    """Reads members of archives; keeps the last archive open."""

    def __init__(self) -> None:
        self._path = ""
        self._zip: zipfile.ZipFile | None = None
        self._tar = -1

    def read(self, path: str, member: str) -> bytes:
        """One member's bytes, at most a little more than `MAX_BYTES`.

        Raises:
            OSError: the archive cannot be read.
            DataError: the member is damaged.
        """
        if path != self._path:
            self.close()
            if path.lower().endswith(ZIP):
                self._zip = zipfile.ZipFile(path)
            else:
                self._tar = os.open(plain_tar(path), os.O_RDONLY)
            self._path = path
        if self._zip is not None:
            with self._zip.open(member) as file:
                return BoundedReader(cast(BinaryIO, file), None, path).read(MAX_BYTES + 1)
        offset, size = (int(number) for number in member.split(":"))
        return os.pread(self._tar, min(size, MAX_BYTES + 1), offset)

    def close(self) -> None:
        """Close what is open."""
        if self._zip is not None:
            self._zip.close()
        if self._tar >= 0:
            os.close(self._tar)
        self._path, self._zip, self._tar = "", None, -1


_unpacked: dict[str, Path] = {}
_folder: list[tempfile.TemporaryDirectory[str]] = []


def plain_tar(path: str) -> Path:
    """The tar itself; of a packed one an unpacked copy that lives as long as this process.

    Raises:
        DataError: it is damaged, or unpacks to too much.
    """
    if not path.lower().endswith(PACKED_TAR):
        return Path(path)
    if path not in _unpacked:
        import gzip

        if not _folder:
            _folder.append(tempfile.TemporaryDirectory(prefix="fer-ray-tar-"))
        target = Path(_folder[0].name) / f"{len(_unpacked)}.tar"
        with Path(path).open("rb") as packed, target.open("wb") as out:
            unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=packed))
            reader = BoundedReader(unpacked, packed, path)
            while block := reader.read(_BLOCK_BYTES):
                out.write(block)
        _unpacked[path] = target
    return _unpacked[path]
