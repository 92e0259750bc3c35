"""Sources in object storage (`s3://`, `gs://`, whatever pyarrow knows), through a local copy.

The copy stands in a temporary directory for the length of the import: readers need to seek, and a
source is read in small pieces. So the disk must hold the source once; memory need not.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from fer_ray.errors import DataError
from fer_ray.store import is_remote as is_remote
from fer_ray.store import shown as shown


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Copy an object, or all objects below a prefix, to a temporary directory.

    Raises:
        DataError: unknown scheme, nothing there, no access, or a key that would leave the copy.
    """
    with tempfile.TemporaryDirectory(prefix="fer-ray-") as directory:
        try:
            storage, path = pa.fs.FileSystem.from_uri(uri)
            target = _copy(storage, path.rstrip("/"), Path(directory), shown(uri))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shown(uri)} cannot be read: {error}") from error
        yield target


def _copy(storage: pa.fs.FileSystem, path: str, directory: Path, place: str) -> Path:
    info = storage.get_file_info(path)
    if info.type == pa.fs.FileType.NotFound:
        raise DataError(f"{place} does not exist")
    target = directory / _safe(path.rsplit("/", 1)[-1], place)
    if info.type == pa.fs.FileType.File:
        pa.fs.copy_files(path, str(target), storage, pa.fs.LocalFileSystem())
        return target
    listing = storage.get_file_info(pa.fs.FileSelector(path, recursive=True))
    for found in listing:
        _safe(found.path, place)
    pa.fs.copy_files(path, str(target), storage, pa.fs.LocalFileSystem())
    return target


def _safe(key: str, place: str) -> str:
    if ".." in key.split("/") or "\\" in key:
        raise DataError(f"{place} has an object named {key!r}, which would leave the copy")
    return key
