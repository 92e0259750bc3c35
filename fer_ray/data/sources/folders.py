"""Images in class folders: Kaggle's copy of FER2013 and its like, in a folder or an archive.

    train/<class>/Training_N.jpg      -> train
    test/<class>/PublicTest_N.jpg     -> validation
    test/<class>/PrivateTest_N.jpg    -> test
    train|val|test/<class>/...        -> by the folder
    <class>/...                       -> no split; the import makes them

The official split stands in the file names and wins over folders. Between the class folder and
the image one more folder may stand, such as a person's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from fer_ray.data.sources.archives import TABLES, Member
from fer_ray.data.sources.bounded import BoundedReader
from fer_ray.data.sources.grouping import Grouping
from fer_ray.data.sources.naming import (
    SPLIT_OF_PREFIX,
    SPLIT_OF_WORD,
    Labels,
    UnknownLabelError,
)
from fer_ray.data.sources.record import Record, image_pixels
from fer_ray.errors import DataError
from fer_ray.images.decode import MAX_BYTES, SUFFIXES

_MAX_STRANGE = 1000
_MAX_NAMED = 40


def folder_members(root: Path) -> Iterator[Member]:
    """Images and tables below a folder, sorted within each folder; linked folders are not entered.

    Raises:
        DataError: a folder cannot be listed.
    """
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in listing)
        except OSError as error:
            raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
        for name, is_folder in entries:
            if is_folder:
                waiting.append((folder / name, f"{prefix}{name}/"))
            elif name.lower().endswith(SUFFIXES + TABLES) and (folder / name).is_file():
                yield _file_member(folder / name, prefix + name)


def _file_member(path: Path, name: str) -> Member:
    # Bytes of a name that are not UTF-8 stand as \xNN: Parquet holds no others.
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # the decoder refuses what is longer

    def open_() -> BoundedReader:
        return BoundedReader(cast(BinaryIO, path.open("rb")), None, str(path))

    return Member(readable, read, open_)


@dataclass
class Layout:
    """Split and class of images by their path; remembers what it could not place.

    Attributes:
        place: the source, named in errors.
        labels: the known classes.
    """

    place: str
    labels: Labels
    _found: int = 0
    _strange: int = 0
    _first: str = ""
    _folders: dict[str, None] = field(default_factory=dict)
    _why: str = ""

    def take(self, name: str) -> tuple[str | None, str | None] | None:
        """Split (None: it names none) and class (None: left out); None where it has no place.

        Raises:
            DataError: too many images have no place.
        """
        parts = PurePosixPath(name).parts
        try:
            depth, label = self._label(parts)
        except UnknownLabelError as error:
            self._note(name, parts, str(error))
            return None
        self._found += 1
        return _split_of(parts, depth), label

    def _label(self, parts: tuple[str, ...]) -> tuple[int, str | None]:
        """Depth of the class folder, and the class."""
        if len(parts) < 2:
            raise UnknownLabelError("stands in no folder")
        above = len(parts) >= 3 and self.labels.knows(parts[-3])
        if above and not self.labels.knows(parts[-2]):
            return len(parts) - 3, self.labels.of(parts[-3])
        return len(parts) - 2, self.labels.of(parts[-2])

    def _note(self, name: str, parts: tuple[str, ...], why: str) -> None:
        self._strange += 1
        self._first = self._first or name
        self._why = self._why or why
        if len(parts) >= 2 and len(self._folders) < _MAX_NAMED:
            self._folders[parts[-2]] = None
        if self._strange > _MAX_STRANGE:
            self.finish()

    def finish(self) -> None:
        """All names were taken.

        Raises:
            DataError: some had no place, or there were none.
        """
        if not self._found and not self._strange:
            raise DataError(
                f"{self.place} holds no image",
                "Give an image folder or zip, a CSV or Parquet (docs/data.md lists the forms).",
            )
        if not self._strange:
            return
        folders = list(self._folders)
        known = ", ".join(self.labels.class_names)
        more = " or more" if self._strange > _MAX_STRANGE else ""
        message = (
            f"{self.place}: {self._strange:,}{more} image(s) such as {self._first!r} stand in no "
            f"known class folder; unknown: {', '.join(map(repr, folders)) or 'no folder at all'}"
        )
        remedy = f"Known classes: {known}."
        if any(folder.isdigit() for folder in folders):
            remedy += " Folders that are numbers need --label-order NAME,NAME,... (0 first)."
        elif folders:
            all_names = ",".join([*self.labels.class_names, *folders])
            remedy += (
                f" Read such a folder as a class with --classes {folders[0]}=CLASS, leave it out "
                f"with --classes {folders[0]}=, or name all classes: --classes {all_names}"
            )
        raise DataError(message, remedy)


def _split_of(parts: tuple[str, ...], depth: int) -> str | None:
    prefix = parts[-1].split("_", 1)[0]
    if prefix in SPLIT_OF_PREFIX:
        return SPLIT_OF_PREFIX[prefix]
    beside = [parts[depth - 1]] if depth >= 1 else []
    beside += parts[depth + 1 : -1]
    return next((SPLIT_OF_WORD[p.lower()] for p in beside if p.lower() in SPLIT_OF_WORD), None)


def survey(members: Iterable[Member], place: str, order: str, classes: str | None) -> None:
    """Place every image by its name before the first is decoded.

    Raises:
        DataError: see `Layout.finish`.
    """
    layout = Layout(place, Labels(order, classes))
    for member in members:
        if member.suffix in SUFFIXES and not member.hidden:
            layout.take(member.name)
    layout.finish()


def image_records(
    members: Iterable[Member], place: str, labels: Labels, grouping: Grouping | None
) -> Iterator[Record]:
    """Records of the images among some members.

    Raises:
        DataError: see `Layout`; or the archive below cannot be read.
    """
    layout = Layout(place, labels)
    for member in members:
        if member.suffix not in SUFFIXES or member.hidden:
            continue
        placed = layout.take(member.name)
        if placed is None:
            continue
        split, label = placed
        if label is None:
            continue
        group = grouping.of_name(member.name) if grouping is not None else None
        payload, fault = b"", None
        try:
            payload = member.read()
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        yield Record(member.name, split, label, payload, image_pixels, group, fault=fault)
    layout.finish()
