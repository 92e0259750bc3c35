"""What form a source has, and the reader that fits.

A folder, zip or tar with images is read as class folders; else its Parquet files are taken, else
its CSV. Files are known by their first bytes, not by their names.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from fer_ray.data.prepared import MANIFEST
from fer_ray.data.sources.archives import Member, tar_members, zip_members
from fer_ray.data.sources.bounded import BoundedReader, Line, lines
from fer_ray.data.sources.csv_rows import Header, csv_records, read_header
from fer_ray.data.sources.folders import folder_members, image_records, survey
from fer_ray.data.sources.grouping import Grouping
from fer_ray.data.sources.naming import SPLIT_OF_WORD, Labels
from fer_ray.data.sources.parquet_rows import ParquetImages
from fer_ray.data.sources.record import Record, Source
from fer_ray.data.sources.remote import is_remote, local_copy
from fer_ray.data.sources.votes import VoteRow, read_votes
from fer_ray.errors import DataError, UserError
from fer_ray.images.decode import SUFFIXES
from fer_ray.labels import EXPRESSIONS

_FORMS = "a folder nor a zip, tar, CSV or Parquet file that fer-ray reads"
_MAX_TABLES = 10_000


@dataclass(frozen=True)
class SourceOptions:
    """How a source is to be read.

    Attributes:
        label_order: `auto`, `fer2013`, `alphabetical`, or names with commas between.
        classes: None, or what `naming.parse_classes` reads.
        group_by: None, or what `grouping.Grouping` reads.
        votes: FER+'s `fer2013new.csv`, for the CSV forms with a Usage column.
    """

    label_order: str = "auto"
    classes: str | None = None
    group_by: str | None = None
    votes: Path | None = None


@dataclass
class _Opening:
    """One source on its way to be opened."""

    path: Path
    options: SourceOptions
    labels: Labels
    grouping: Grouping | None
    notes: list[str]


@contextlib.contextmanager
def open_source(place: Path | str, options: SourceOptions) -> Iterator[Source]:
    """Open a source: a path, or a URI of object storage.

    Raises:
        DataError: missing, of no known form, empty, damaged or hostile.
        UserError: options that cannot be, or do not fit the form.
    """
    labels = Labels(options.label_order, options.classes)
    grouping = Grouping(options.group_by) if options.group_by is not None else None
    with contextlib.ExitStack() as stack:
        remote = isinstance(place, str) and is_remote(place)
        path = stack.enter_context(local_copy(str(place))) if remote else Path(place)
        opening = _Opening(path, options, labels, grouping, [])
        source = _open(opening, stack)
        if options.votes is not None and not source.form.startswith("CSV"):
            raise UserError(
                f"--votes joins FER+ to the CSV form by row, but {place} is: {source.form}"
            )
        yield source


def _open(opening: _Opening, stack: contextlib.ExitStack) -> Source:
    path = opening.path
    if path.is_dir():
        if (path / MANIFEST).exists():
            raise DataError(f"{path} is a prepared data set already", "Use it with --data.")
        return _by_content(opening, lambda: folder_members(path), "a folder")
    if not path.exists():
        raise DataError(f"{path} does not exist")
    head = _head(path)
    if head.startswith(b"PK\x03\x04") or zipfile.is_zipfile(path):
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path} is no whole zip archive: {error}",
                "It is damaged or cut off; get it again.",
            ) from error
        return _by_content(opening, lambda: zip_members(archive, path), "a zip")
    if head.startswith(b"PAR1"):
        return _parquet(opening, [(path.name, path)])
    if head[257:262] == b"ustar" or path.suffix.lower() == ".tar":
        return _tar(opening, stack, "a tar")
    if head.startswith(b"\x1f\x8b"):
        return _gzipped(opening, stack)
    if path.suffix.lower() == ".csv" or b"pixels" in head.split(b"\n")[0]:
        return _csv(opening, [_file(path)], "")
    raise DataError(
        f"{path} is neither {_FORMS}",
        "Give Kaggle's FER2013 image-folder zip, fer2013.csv, or another form of docs/data.md.",
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _file(path: Path) -> Member:
    def open_() -> BoundedReader:
        return BoundedReader(cast(BinaryIO, path.open("rb")), None, str(path))

    return Member(path.name, path.read_bytes, open_)


def _gzipped(opening: _Opening, stack: contextlib.ExitStack) -> Source:
    """A tar.gz, or a single CSV in gzip."""
    path = opening.path
    packed = stack.enter_context(path.open("rb"))

    def open_() -> BoundedReader:
        packed.seek(0)
        return BoundedReader(cast(BinaryIO, gzip.GzipFile(fileobj=packed)), packed, str(path))

    with contextlib.closing(open_()) as first:
        head = first.read(tarfile.BLOCKSIZE)
    is_tar = head[257:262] == b"ustar" or path.name.lower().endswith((".tar.gz", ".tgz"))
    if is_tar:
        return _tar(opening, stack, "a tar.gz")
    name = path.name.removesuffix(".gz")
    return _csv(opening, [Member(name, lambda: b"", open_)], "gzip")


# --- by content -----------------------------------------------------------------------------------


def _by_content(opening: _Opening, members: Callable[[], Iterator[Member]], what: str) -> Source:
    """A folder or zip, whose names can be listed before anything is read."""
    tables: list[Member] = []
    for member in members():
        if member.hidden:
            continue
        if member.suffix in SUFFIXES:
            return _images(opening, members, what)
        if len(tables) < _MAX_TABLES:
            tables.append(member)
    parquet = [member for member in tables if member.suffix == ".parquet"]
    if parquet and opening.path.is_dir():
        return _parquet(opening, [(m.name, opening.path / m.name) for m in parquet])
    texts = [member for member in tables if member.suffix == ".csv"]
    if texts:
        return _csv(opening, texts, what)
    raise DataError(
        f"{opening.path} holds no image" + (" and its Parquet is not read" if parquet else ""),
        "Unpack it first." if parquet else "Give one of the forms of docs/data.md.",
    )


def _images(opening: _Opening, members: Callable[[], Iterator[Member]], what: str) -> Source:
    options, labels = opening.options, opening.labels
    _prepare_images(opening)
    survey(members(), str(opening.path), options.label_order, options.classes)
    records = image_records(members(), str(opening.path), labels, opening.grouping)
    return Source(f"class folders of images in {what}", records, labels, opening.notes)


def _prepare_images(opening: _Opening) -> None:
    opening.labels.default(None, "folders carry names")
    if opening.grouping is not None:
        opening.grouping.require_pattern(str(opening.path))


def _tar(opening: _Opening, stack: contextlib.ExitStack, what: str) -> Source:
    """A tar is read once, in its order: the first image or labelled CSV says what it is."""
    path, labels, notes = opening.path, opening.labels, opening.notes
    members = stack.enter_context(contextlib.closing(tar_members(path, notes)))
    for first in members:
        if first.hidden:
            continue
        if first.suffix in SUFFIXES:
            _prepare_images(opening)
            every = itertools.chain([first], members)
            records = image_records(every, str(path), labels, opening.grouping)
            return Source(f"class folders of images in {what}", records, labels, notes)
        if first.suffix == ".csv":
            rows = lines(first.open(), first.name)
            header = read_header(rows)
            if header.pixels is not None and header.label is not None:
                source = _csv_source(
                    opening, [_Table(first.name, header, partial(iter, rows))], what
                )
                return Source(source.form, _to_end(source.records, members), labels, notes)
    raise DataError(f"{path} holds no image", "Give one of the forms of docs/data.md.")


def _to_end(records: Iterator[Record], members: Iterator[Member]) -> Iterator[Record]:
    """Read an archive on to its end after its one CSV, so that a cut one is told."""
    yield from records
    for _ in members:
        pass


# --- CSV and Parquet ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """A CSV with pixels and labels: its header, and the lines that follow it, to be read once."""

    name: str
    header: Header
    rows: Callable[[], Iterator[Line]]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem.lower()


def _csv(opening: _Opening, members: list[Member], where: str) -> Source:
    """Of several CSVs take the best: one with Usage, else all that are named for a split."""
    tables: list[_Table] = []
    others: list[tuple[str, str]] = []
    for member in members:
        header = read_header(lines(member.open(), member.name))
        if header.pixels is None:
            others.append((member.name, "has no column pixels"))
        elif header.label is None:
            others.append((member.name, "has no labels"))
        else:
            tables.append(_Table(member.name, header, partial(_below_header, member)))
    if not tables:
        name, why = others[0]
        raise DataError(
            f"{opening.path}: {name} {why}, so there is nothing to train on",
            "FER2013's CSVs have the columns emotion, pixels and (but for train.csv) Usage.",
        )
    with_usage = sorted(
        (table for table in tables if table.header.usage is not None),
        key=lambda table: (table.stem != "fer2013", table.name),
    )
    of_splits = [table for table in tables if table.stem in SPLIT_OF_WORD]
    chosen = with_usage[:1] or of_splits or tables[:1]
    names = ", ".join(table.name for table in chosen)
    others += [(t.name, f"is not read: {names} is taken") for t in tables if t not in chosen]
    opening.notes.extend(f"{name} {why}: ignored" for name, why in others)
    return _csv_source(opening, chosen, where)


def _below_header(member: Member) -> Iterator[Line]:
    yield from itertools.islice(lines(member.open(), member.name), 1, None)


def _csv_source(opening: _Opening, tables: list[_Table], where: str) -> Source:
    labels, grouping = opening.labels, opening.grouping
    labels.default(EXPRESSIONS, "FER2013's CSV forms count in the published order")
    header = tables[0].header
    votes: Iterator[VoteRow] | None = None
    if opening.options.votes is not None:
        if header.usage is None:
            raise UserError(
                f"--votes joins by row and Usage, but {tables[0].name} has no Usage",
                "Votes need the whole fer2013.csv or icml_face_data.csv.",
            )
        votes = read_votes(opening.options.votes, opening.notes)

    def records() -> Iterator[Record]:
        for table in tables:
            yield from csv_records(table.rows(), table.name, table.header, labels, grouping, votes)

    names = ", ".join(table.name for table in tables)
    columns = ",".join(header.names)
    kind = "as fer2013.csv" if header.plain else "not in the order or spelling of fer2013.csv"
    if header.usage is None:
        kind = "no Usage, as the competition's train.csv"
    place = f" in {where}" if where else ""
    return Source(f"CSV{place}: {names} ({columns}; {kind})", records(), labels, opening.notes)


def _parquet(opening: _Opening, files: list[tuple[str, Path]]) -> Source:
    labels = opening.labels
    tables = [ParquetImages(path, name) for name, path in files]
    names = tables[0].class_names
    if any(table.class_names != names for table in tables):
        raise DataError(f"{opening.path}: its Parquet files name different classes")
    if names is not None:
        labels.default(names, "the file's own metadata names them")
    else:
        labels.default_alphabetical("Parquet without names counts them sorted, as image folders")

    def records() -> Iterator[Record]:
        for table in tables:
            yield from table.records(labels, opening.grouping)

    form = f"Parquet of images, {len(tables)} file(s)"
    return Source(form, records(), labels, opening.notes)
