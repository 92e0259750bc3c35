"""Files that appear whole or not at all.

Every file that outlives a process is written here: to a temporary name in the same directory,
flushed to the disk, then renamed. A reader never sees half a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fer_ray.errors import OutputExistsError, UserError

MAX_JSON_BYTES = 64 * 1024 * 1024
"""A JSON file above this is not ours; refused before it is parsed."""


def is_remote(place: str) -> bool:
    """Whether a place is an address in object storage."""
    return "://" in place


def shown(place: str) -> str:
    """A place as it may be printed and stored: without keys and options of its address."""
    return re.sub(r"//[^/@]*@", "//", place).split("?")[0] if is_remote(place) else place


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash at any moment leaves the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success flush it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, document: Any) -> None:
    """Write JSON with sorted keys and two spaces, atomically. NaN is refused, not written."""
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        UserError: missing, too large, or not JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path} has more than {MAX_JSON_BYTES:,} bytes: not a fer-ray file")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def require_on_disk(path: Path) -> None:
    """Refuse an address where only a path can be written; else a folder `s3:` would be made.

    Raises:
        UserError: an address in object storage, also one that `Path` took a slash from.
    """
    for place, part in enumerate(path.parts):
        if re.fullmatch("[A-Za-z][A-Za-z0-9+.-]+:", part):
            address = f"{part}//{'/'.join(path.parts[place + 1 :])}"
            raise UserError(
                f"{shown(address)} is an address in object storage, but this is written to a disk",
                "Give a directory on a disk that every node sees, and copy it to the storage.",
            )


def require_absent(path: Path, what: str, remedy: str) -> None:
    """Refuse to overwrite: `path` must not exist, or be an empty directory.

    Raises:
        OutputExistsError: something is there.
        UserError: no path, but an address in object storage.
    """
    require_on_disk(path)
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise OutputExistsError(f"{what} {path} already exists", remedy)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a temporary directory beside `path`; on success it becomes `path`, else it vanishes."""
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()  # only an empty one gets here: see `require_absent`
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_tree(path: Path) -> None:
    """Remove a directory so that a crash at any moment leaves it whole or gone, never in parts."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def swap_symlink(link: Path, target: str) -> None:
    """Point `link` to `target` (relative to its directory) by rename: never absent in between."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    temporary.symlink_to(target)
    os.replace(temporary, link)
