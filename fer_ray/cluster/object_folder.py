"""A folder in object storage: whole objects by name, read and written through pyarrow.

Storage that does not answer is a fault of the machine, as a full disk is: the search ends in order
and can be gone on with.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from fer_ray.errors import UserError
from fer_ray.store import shown, write_atomic


@dataclass(frozen=True)
class ObjectFolder:
    """All objects below an address; it travels to other processes as that address.

    Attributes:
        uri: `s3://bucket/folder`, `gs://...`, with the options that pyarrow knows.
    """

    uri: str

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return (ObjectFolder, (self.uri,))

    @property
    def name(self) -> str:
        """The address as it may be printed."""
        return shown(self.uri)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        try:
            files, root = pa.fs.FileSystem.from_uri(self.uri)
        except (pa.ArrowException, ValueError) as error:
            raise UserError(f"{self.name} cannot be opened: {str(error)[:200]}") from error
        return files, root.rstrip("/")

    @contextlib.contextmanager
    def _answering(self, name: str) -> Iterator[tuple[Any, str]]:
        try:
            files, root = self._place
            yield files, f"{root}/{name}" if name else root
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            place = f"{self.name}/{name}"
            raise OSError(errno.EIO, f"{place} does not answer: {str(error)[:200]}") from error

    def exists(self, name: str) -> bool:
        with self._answering(name) as (files, path):
            return bool(files.get_file_info(path).type == pa.fs.FileType.File)

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        with (
            contextlib.suppress(FileNotFoundError),
            self._answering(name) as (files, path),
            files.open_input_stream(path) as stream,
        ):
            return bytes(stream.readall())
        return None

    def write(self, name: str, data: bytes) -> None:
        """Put an object: readers see the old one or the new one."""
        with self._answering(name) as (files, path), files.open_output_stream(path) as stream:
            stream.write(data)

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._answering(name) as (files, path):
            files.delete_file(path)

    def names(self, below: str = "") -> list[str]:
        """Names of all objects below a folder, sorted."""
        with self._answering(below) as (files, path):
            selector = pa.fs.FileSelector(path, allow_not_found=True, recursive=True)
            found = files.get_file_info(selector)
        root = self._place[1] + "/"
        return sorted(f.path.removeprefix(root) for f in found if f.type == pa.fs.FileType.File)

    def fetch(self, name: str, target: Path) -> bool:
        """Copy an object to a file, atomically; gives whether there was one."""
        data = self.read(name)
        if data is None:
            return False
        write_atomic(target, data)
        return True
