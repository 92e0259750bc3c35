"""Which files of the given sources are scored, in a deterministic order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_ray.errors import UserError
from fer_ray.images.decode import SUFFIXES


@dataclass(frozen=True)
class Listing:
    """Files to score.

    Attributes:
        paths: absolute, sorted, each once.
        num_skipped: files of the folders whose names do not end like an image's.
    """

    paths: tuple[str, ...]
    num_skipped: int


def list_images(sources: Sequence[str]) -> Listing:
    """Walk folders (recursively, hidden names left out) and take files as they are named.

    Raises:
        UserError: a source that is not there, or no image at all.
    """
    paths: set[str] = set()
    skipped = 0
    for source in sources:
        place = Path(os.path.abspath(source))
        if place.is_dir():
            for path in _walk(place):
                if path.suffix.lower() in SUFFIXES and not _is_special(path):
                    paths.add(str(path))
                else:
                    skipped += 1
        elif place.exists():
            paths.add(str(place))
        else:
            raise UserError(f"{source} does not exist")
    if not paths:
        raise UserError(
            f"no image in {', '.join(sources)} ({skipped:,} other files)",
            f"Names of images end in {', '.join(SUFFIXES)}.",
        )
    return Listing(tuple(sorted(paths)), skipped)


def count_up_to(sources: Sequence[str], limit: int) -> int | None:
    """Roughly how many images the sources hold; None where there are more, or nobody knows."""
    count = 0
    for source in sources:
        place = Path(source)
        if not place.exists():
            return None
        for path in _walk(place) if place.is_dir() else (place,):
            count += path.suffix.lower() in SUFFIXES or path == place
            if count > limit:
                return None
    return count


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder; links to folders are not followed, so there are no circles."""
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)


def _is_special(path: Path) -> bool:
    """A FIFO, a socket or a device: reading it could wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # a broken link: it becomes an error row
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def readable_path(path: str) -> str:
    r"""A path as text: bytes that are not UTF-8 stand as \xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
