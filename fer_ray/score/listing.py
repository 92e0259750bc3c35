"""From what the user named to one ordered stream of items, each path once."""

from __future__ import annotations

import glob
import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fer_ray.data.sources.remote import is_remote, shown
from fer_ray.errors import UserError
from fer_ray.images.decode import SUFFIXES
from fer_ray.score.archives import ARCHIVES, ArchiveSource
from fer_ray.score.external_sort import last_of_equals, sorted_unique
from fer_ray.score.folders import FileSource, FolderSource, Source, is_image_name, local_item
from fer_ray.score.inventory import InventorySource
from fer_ray.score.items import Item, key_of
from fer_ray.score.objects import ObjectSource
from fer_ray.score.options import SourceOptions
from fer_ray.score.storage import bucket_of
from fer_ray.score.tables import BytesSource, ListSource, TableSource
from fer_ray.score.transient import Patience

STDIN = "-"
LISTS = (".txt", ".lst", ".list")
TABLES = (".csv", ".csv.gz", ".parquet")
MANIFEST = "manifest.json"


class GlobSource:
    """The images that a pattern matches, `**` included."""

    rescans = True

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.skipped: Counter[str] = Counter()

    def items(self, after: bytes) -> Iterator[Item]:
        matches = map(os.path.abspath, glob.iglob(self.pattern, recursive=True))  # noqa: PTH207
        images = (
            local_item(path)
            for path in matches
            if is_image_name(key_of(path)) and not os.path.isdir(path)  # noqa: PTH112
        )
        yield from (item for item in sorted_unique(images) if item.key > after)


class Listing:
    """All sources of a job.

    Attributes:
        sources: each sorted by itself.
        kept: the user's columns that go along.
        storages: bucket -> the source's address as given, keys included.
        identity: what a resumed job must find unchanged.
    """

    def __init__(self, sources: Sequence[Source], kept: pa.Schema, names: Sequence[str]) -> None:
        self.sources = tuple(sources)
        self.kept = kept
        self.storages = {bucket_of(name): name for name in names if is_remote(name)}
        self.identity = [_identity(name) for name in names]

    def items(self, after: bytes) -> Iterator[Item]:
        """Items whose key is above `after`, sorted, each path once; never held as a whole."""
        streams = [source.items(after) for source in self.sources]
        if len(streams) == 1:
            return streams[0]
        return last_of_equals(heapq.merge(*streams, key=lambda item: item.key))

    @property
    def skipped(self) -> Counter[str]:
        """What was passed over since this listing began, by reason."""
        return sum((source.skipped for source in self.sources), Counter())

    @property
    def skipped_in_order(self) -> Counter[str]:
        """The part of it that a listing which is continued does not count again."""
        return sum((each.skipped for each in self.sources if not each.rescans), Counter())


def open_sources(
    names: Sequence[str], options: SourceOptions, patience: Patience, stdin_list: Path | None
) -> Listing:
    """Look at each source, without listing it.

    Args:
        names: folders, files, globs, lists, tables, archives, inventories, URIs, `-`.
        options: for tables.
        patience: with object storage.
        stdin_list: where standard input was copied to, for `-`.

    Raises:
        UserError: a source that is not there or cannot be read; tables whose kept columns differ.
    """
    sources: list[Source] = []
    for name in names:
        sources += _open(name, options, patience, stdin_list)
    kept: pa.Schema | None = None
    for source in sources:
        own = getattr(source, "kept", pa.schema([]))
        if kept is not None and not own.equals(kept):
            raise UserError(
                "--keep-columns wants the same columns, of the same types, in every source",
                "Score the sources by themselves.",
            )
        kept = own
    if options.keep_columns and not (kept is not None and len(kept)):
        raise UserError("--keep-columns is for CSV and Parquet sources; there is none")
    return Listing(sources, kept if kept is not None else pa.schema([]), names)


def _open(
    name: str, options: SourceOptions, patience: Patience, stdin_list: Path | None
) -> list[Source]:
    if name == STDIN:
        assert stdin_list is not None, "copied by the job"
        return [ListSource(str(stdin_list))]
    if is_remote(name):
        return [_remote(name, patience)]
    path = os.path.abspath(name)
    if os.path.isdir(path):  # noqa: PTH112 - a path may hold any bytes
        return [FolderSource(path)]
    if os.path.lexists(path):
        return [_file(path, options)]
    if not glob.has_magic(name):
        raise UserError(f"{name} does not exist")
    matches = [*map(os.path.abspath, glob.iglob(name, recursive=True))]  # noqa: PTH207
    others = [match for match in matches if not is_image_name(key_of(match))]
    found: list[Source] = [GlobSource(name)] if len(others) < len(matches) else []
    for match in others:
        if match.lower().endswith((*TABLES, *ARCHIVES)):
            found.append(_file(match, options))
        elif os.path.isdir(match):  # noqa: PTH112
            found.append(FolderSource(match))
    if not found:
        raise UserError(f"{name} matches no image, folder, table or archive")
    return found


def _remote(name: str, patience: Patience) -> Source:
    scheme, _, path = name.partition("?")[0].partition("://")
    if scheme in ("http", "https"):
        raise UserError(
            f"{shown(name)}: http(s) addresses are read from lists only",
            "Put it into a text file, one address a line, or pipe it to `fer-ray score -`.",
        )
    if path.endswith(MANIFEST):
        return InventorySource(name)
    if path.lower().endswith((*ARCHIVES, *TABLES, *LISTS)):
        raise UserError(
            f"{shown(name)}: lists, tables and archives are read from a disk", "Copy it first."
        )
    return ObjectSource(name, patience)


def _file(path: str, options: SourceOptions) -> Source:
    lower = path.lower()
    if lower.endswith(LISTS):
        return ListSource(path)
    if lower.endswith(TABLES):
        if options.bytes_column is not None:
            return BytesSource(path, options.bytes_column, options.keep_columns)
        return TableSource(path, options.path_column or "path", options.keep_columns)
    if lower.endswith(ARCHIVES):
        return ArchiveSource(path)
    if lower.endswith("/" + MANIFEST):
        return InventorySource(path)
    return FileSource(path)


def _identity(name: str) -> dict[str, Any]:
    """A source's name and, of a file that lists others, its version."""
    if name == STDIN:
        return {"source": STDIN}
    if is_remote(name):
        return {"source": shown(name)}
    path = os.path.abspath(name)
    if os.path.isfile(path) and not is_image_name(key_of(path)):  # noqa: PTH113
        status = os.stat(path)  # noqa: PTH116
        return {"source": _text(path), "version": f"{status.st_size}:{status.st_mtime_ns}"}
    return {"source": _text(path)}


def _text(path: str) -> str:
    return key_of(path).decode("utf-8", "backslashreplace")


def hashed_identity(identity: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without the names, for jobs that hash paths."""
    return [
        {**each, "source": hashlib.sha256(str(each["source"]).encode()).hexdigest()}
        for each in identity
    ]


def no_image(names: Sequence[str], skipped: Counter[str]) -> UserError:
    """What is said when the sources hold nothing to score."""
    others = sum(skipped.values())
    return UserError(
        f"no image in {', '.join(shown(name) for name in names)} ({others:,} other files)",
        f"Names of images end in {', '.join(SUFFIXES)}.",
    )


def count_up_to(sources: Sequence[str], limit: int) -> int | None:
    """Images in local folders and files; None where there are more, or nobody knows yet."""
    count = 0
    for source in sources:
        if os.path.isdir(source):  # noqa: PTH112 - a URI is no Path
            for _ in FolderSource(os.path.abspath(source)).items(b""):
                count += 1
                if count > limit:
                    return None
        elif os.path.isfile(source) and source.lower().endswith(SUFFIXES):  # noqa: PTH113
            count += 1
        else:
            return None
    return count
