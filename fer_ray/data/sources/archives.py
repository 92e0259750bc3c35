"""Members of zip and tar archives, one by one and within limits. Nothing is ever extracted.

An archive is hostile until read: the size, the ratio and the number of members are bounded before
a byte is unpacked. A link in a zip is refused; links, devices and sparse files in a tar are passed
over with a word. A name that would leave the archive is refused, although it could do no harm.
"""

from __future__ import annotations

import contextlib
import gzip
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from fer_ray.data.sources.bounded import MAX_RATIO, SLACK_BYTES, BoundedReader
from fer_ray.errors import DataError
from fer_ray.images.decode import MAX_BYTES, SUFFIXES

MAX_MEMBERS = 5_000_000
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Member:
    """One file of a folder or an archive.

    Attributes:
        name: path inside, with `/`.
        read: its bytes, at most a little more than `MAX_BYTES`; a tar's only before the next.
        open: a stream of its bytes, likewise.
    """

    name: str
    read: Callable[[], bytes]
    open: Callable[[], BoundedReader]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def hidden(self) -> bool:
        parts = PurePosixPath(self.name).parts
        return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    """Images and tables of a zip, sorted by name.

    Raises:
        DataError: too many members, one too large or too densely packed, or a name with `..`.
    """
    members = archive.infolist()
    _check_number(len(members), path)
    packed = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_RATIO * packed + SLACK_BYTES:
        raise DataError(
            f"{path} unpacks from {packed:,} to {unpacked:,} bytes; "
            f"at most {MAX_RATIO} times are read"
        )
    for member in sorted(members, key=lambda m: m.filename):
        _check_name(member.filename, path)
        if member.is_dir() or not _wanted(member.filename):
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(
                f"{path}: {member.filename} is a link; links in archives are not followed",
                "Pack the folder again, with the images themselves.",
            )
        _check_size(member, path)
        yield _zip_member(archive, member, path)


def _check_size(member: zipfile.ZipInfo, path: Path) -> None:
    is_table = PurePosixPath(member.filename).suffix.lower() in TABLES
    too_large = member.file_size > MAX_BYTES and not is_table
    if too_large or member.file_size > MAX_RATIO * max(member.compress_size, 1):
        raise DataError(
            f"{path}: {member.filename} unpacks from {member.compress_size:,} to "
            f"{member.file_size:,} bytes; at most {MAX_BYTES:,} and {MAX_RATIO} times are read"
        )


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Member:
    def open_() -> BoundedReader:
        place = f"{path}: {member.filename}"
        try:
            return BoundedReader(cast(BinaryIO, archive.open(member)), None, place)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{place} cannot be read: {error}") from error

    def read() -> bytes:
        with contextlib.closing(open_()) as file:
            # The second read meets the end, and with it the checksum.
            return file.read(member.file_size) + file.read(1)

    return Member(member.filename, read, open_)


def tar_members(path: Path, notes: list[str]) -> Generator[Member, None, None]:
    """Images and tables of a tar or tar.gz, in its own order, in one pass.

    Raises:
        DataError: as for a zip; or the archive is damaged or has no end.
    """
    with path.open("rb") as packed:
        zipped = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if zipped else packed
        reader = BoundedReader(file, packed if zipped else None, str(path))
        passed: Counter[str] = Counter()
        try:
            yield from _tar_members(reader, path, passed)
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            raise DataError(f"{path} is no whole tar archive: {error}") from error
        if reader.last.strip(b"\0") or len(reader.last) != tarfile.BLOCKSIZE:
            raise DataError(
                f"{path} ends without the mark that ends a tar archive",
                "It is damaged or cut off; get it again.",
            )
        reader.read_to_end()
        notes.extend(
            f"{number:,} {what}(s) in {path.name} were passed over"
            for what, number in passed.items()
        )


def _tar_members(reader: BoundedReader, path: Path, passed: Counter[str]) -> Iterator[Member]:
    # errors: tarfile's default would replace bytes that are not UTF-8 by what Parquet refuses.
    archive = tarfile.TarFile(fileobj=cast(BinaryIO, reader), errors="backslashreplace")
    number = 0
    # The first member is read when the archive is opened.
    while (member := archive.next()) is not None:
        archive.__dict__["members"].clear()  # else it remembers every member
        number += 1
        _check_number(number, path)
        _check_name(member.name, path)
        if member.issym() or member.islnk():
            passed["link"] += 1
        elif member.isdir():
            continue
        elif not member.isreg() or member.sparse is not None:
            passed["device or sparse file"] += 1
        elif _wanted(member.name):
            yield _tar_member(archive, member, path)


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Member:
    place = f"{path}: {member.name}"
    is_table = PurePosixPath(member.name).suffix.lower() in TABLES
    if member.size > MAX_BYTES and not is_table:
        raise DataError(
            f"{place} has {member.size:,} bytes; at most {MAX_BYTES:,} are read of an image"
        )

    def open_() -> BoundedReader:
        file = archive.extractfile(member)
        assert file is not None, "a regular file"
        return BoundedReader(cast(BinaryIO, file), None, place)

    return Member(member.name, lambda: open_().read(member.size), open_)


def _wanted(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES + TABLES


def _check_number(number: int, path: Path) -> None:
    if number > MAX_MEMBERS:
        raise DataError(f"{path} has {number:,} members; at most {MAX_MEMBERS:,} are read")


def _check_name(name: str, path: Path) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or plain[1:3] == ":/":
        raise DataError(
            f"{path} has a member named {name!r}, which points out of the archive",
            "Such an archive is made to do harm; get it from another place.",
        )
