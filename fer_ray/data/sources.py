"""Sources of labelled images: Kaggle's image folders, packed in a zip or not.

    train/<class>/Training_N.jpg      -> train
    test/<class>/PublicTest_N.jpg     -> validation
    test/<class>/PrivateTest_N.jpg    -> test

The official split stands in the file names; where they carry none, the top folder decides.
Archives are never unpacked: members are read one by one, within limits.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fer_ray.errors import DataError
from fer_ray.images.decode import MAX_BYTES, SUFFIXES
from fer_ray.labels import EXPRESSIONS

MAX_MEMBERS = 5_000_000
MAX_RATIO = 200
"""Unpacked over packed bytes of one member; images barely shrink in a zip."""

_SPLIT_OF_PREFIX = {
    "Training": "train",
    "PublicTest": "validation",
    "PrivateTest": "test",
}
_SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}


@dataclass(frozen=True)
class LabelledImage:
    """One image of a source, not yet decoded.

    Attributes:
        split: train, validation or test.
        label: expression name.
        source: its path inside the source.
        read: gives its bytes.
    """

    split: str
    label: str
    source: str
    read: Callable[[], bytes]


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Iterator[LabelledImage]]:
    """Open a zip or a folder; images come sorted by their path.

    Raises:
        DataError: missing, of another form, empty, or with unknown class folders.
    """
    if path.is_dir():
        yield _labelled(_folder_files(path), str(path))
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _labelled(_zip_files(archive, path), str(path))
    elif not path.exists():
        raise DataError(f"{path} does not exist")
    else:
        raise DataError(
            f"{path} is neither a folder nor a zip archive",
            "Give Kaggle's FER2013 image-folder zip, or the folder it unpacks to.",
        )


def _folder_files(root: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path.relative_to(root).as_posix(), path.read_bytes


def _zip_files(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path} has {len(members):,} members; at most {MAX_MEMBERS:,} are read")
    for member in sorted(members, key=lambda m: m.filename):
        if member.is_dir() or PurePosixPath(member.filename).suffix.lower() not in SUFFIXES:
            continue
        if member.file_size > MAX_BYTES or member.file_size > MAX_RATIO * max(
            member.compress_size, 1
        ):
            raise DataError(
                f"{path}: {member.filename} unpacks from {member.compress_size:,} to "
                f"{member.file_size:,} bytes; at most {MAX_BYTES:,} and {MAX_RATIO} times are read"
            )

        def read(member: zipfile.ZipInfo = member) -> bytes:
            try:
                return archive.read(member)
            except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
                raise DataError(f"{path}: {member.filename} cannot be read: {error}") from error

        yield member.filename, read


def _labelled(
    files: Iterator[tuple[str, Callable[[], bytes]]], place: str
) -> Iterator[LabelledImage]:
    strange: list[str] = []
    found = 0
    for name, read in files:
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        split, label = _split_of(parts), _label_of(parts)
        if split is None or label is None:
            strange.append(name)
            if len(strange) > 1000:
                break
            continue
        found += 1
        yield LabelledImage(split, label, name, read)
    if not found and not strange:
        raise DataError(
            f"{place} holds no image", "Give Kaggle's FER2013 image-folder zip or folder."
        )
    if strange:
        raise DataError(
            f"{place} is not laid out like FER2013: {len(strange):,} image(s) such as "
            f"{strange[0]!r} have no <split>/<class>/ folders",
            f"Known classes: {', '.join(EXPRESSIONS)}; known splits: "
            f"{', '.join(_SPLIT_OF_FOLDER)}, or names that begin with "
            f"{', '.join(_SPLIT_OF_PREFIX)}.",
        )


def _split_of(parts: tuple[str, ...]) -> str | None:
    prefix = parts[-1].split("_", 1)[0]
    if prefix in _SPLIT_OF_PREFIX:
        return _SPLIT_OF_PREFIX[prefix]
    return _SPLIT_OF_FOLDER.get(parts[-3].lower()) if len(parts) >= 3 else None


def _label_of(parts: tuple[str, ...]) -> str | None:
    if len(parts) < 2:
        return None
    folder = parts[-2].lower()
    folder = _SYNONYMS.get(folder, folder)
    return folder if folder in EXPRESSIONS else None
