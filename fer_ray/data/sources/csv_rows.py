"""Pixels in text: `fer2013.csv`, `icml_face_data.csv`, the competition's `train.csv`.

Columns are found by name, whatever their order and the blanks around them. One row at a time,
each within a bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from fer_ray.data.sources.bounded import Line
from fer_ray.data.sources.grouping import Grouping
from fer_ray.data.sources.naming import SPLIT_OF_WORD, Labels, UnknownLabelError
from fer_ray.data.sources.record import Pixels, Record, image_pixels, side_of, text_pixels
from fer_ray.data.sources.votes import VoteRow
from fer_ray.errors import DataError

LABEL_COLUMNS = ("emotion", "label", "labels")
_PIXELS = "pixels"
_USAGE = "usage"
_CUT_OFF = "; the file ends here without a line break, so it is cut off"
_FIELD = re.compile(rb'(?:^|,)\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,"]*))')


@dataclass(frozen=True)
class Header:
    """Columns of a CSV, by their place.

    Attributes:
        names: as they stand in the file, blanks stripped.
        pixels, label, usage: index, or None where there is no such column.
        plain: whether they are `emotion,pixels,Usage` to the letter.
    """

    names: list[str]
    pixels: int | None
    label: int | None
    usage: int | None
    plain: bool


def read_header(rows: Iterator[Line]) -> Header:
    """Take the first line.

    Raises:
        DataError: it is too long.
    """
    first = next(rows, (b"", True))[0]
    text = first.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    raw = [name.strip('"') for name in text.split(",")]
    names = [name.strip() for name in raw]
    plain = [name.lower() for name in names]

    def index(*wanted: str) -> int | None:
        return next((plain.index(name) for name in wanted if name in plain), None)

    is_plain = raw == ["emotion", "pixels", "Usage"]
    return Header(names, index(_PIXELS), index(*LABEL_COLUMNS), index(_USAGE, "split"), is_plain)


def csv_records(
    rows: Iterator[Line],
    name: str,
    header: Header,
    labels: Labels,
    grouping: Grouping | None,
    votes: Iterator[VoteRow] | None,
) -> Iterator[Record]:
    """Records of a CSV's rows.

    Args:
        rows: the lines below the header.
        name: path of the file inside the source; rows count from 1, the header left out.
        header: of this file, with pixels and labels.
        votes: FER+ rows in the same order; rows that they drop are left out.

    Raises:
        DataError: a line beyond all bounds, a broken archive, or votes that do not fit.
    """
    assert header.pixels is not None
    assert header.label is not None
    reader = _Rows(name, header, labels, grouping)
    number = 0
    for line, ended in rows:
        if not line.strip():
            continue
        number += 1
        vote = None
        if votes is not None:
            vote = next(votes, None)
            if vote is None:
                raise DataError(f"{name} goes on at row {number:,}, where the votes end")
        record = reader.record(number, line, ended, vote)
        if record is not None:
            yield record
    if votes is not None and next(votes, None) is not None:
        raise DataError(
            f"{name} ends after row {number:,}, but the votes go on: they are joined by row",
            "Votes fit the whole fer2013.csv alone (35,887 rows); this copy is cut.",
        )


@dataclass
class _Rows:
    name: str
    header: Header
    labels: Labels
    grouping: Grouping | None
    _decode: Callable[[bytes, int], Pixels] | None = None
    _group: int | None = None

    def __post_init__(self) -> None:
        if self.grouping is None:
            return
        self._group = self.grouping.column(self.header.names)
        if self._group is None:
            raise DataError(
                f"--group-by {self.grouping.text!r} is no column of {self.name}",
                f"It has {', '.join(self.header.names)}.",
            )

    def record(self, number: int, line: bytes, ended: bool, vote: VoteRow | None) -> Record | None:
        """The row; None where its class or the votes leave it out."""
        source = f"{self.name} row {number}"
        try:
            fields = self._fields(line)
            split = self._split(fields)
            if vote is not None and vote.split != split:
                raise DataError(
                    f"{source} is {split}, but its votes are {vote.split}: the two differ in order"
                )
            assert self.header.label is not None
            label = self.labels.of(fields[self.header.label].decode("utf-8", "replace"))
        except (_RowError, UnknownLabelError) as error:
            fault = f"{error}{'' if ended else _CUT_OFF}"
            return Record(source, None, "", b"", image_pixels, fault=fault)
        if label is None or (vote is not None and vote.dropped):
            return None
        assert self.header.pixels is not None
        payload = fields[self.header.pixels]
        if self._decode is None:
            self._decode = partial(text_pixels, side=side_of(payload))
        return Record(
            source,
            split,
            label,
            payload,
            self._decode,
            self._group_of(fields, source),
            votes=None if vote is None else vote.counts,
        )

    def _fields(self, line: bytes) -> list[bytes]:
        if b'"' not in line:
            fields = line.split(b",")
        elif line.count(b'"') % 2:
            raise _RowError("has a quote that does not end on its line")
        else:
            fields = [
                (quoted.replace(b'""', b'"') if quoted is not None else plain)
                for quoted, plain in (match.groups() for match in _FIELD.finditer(line))
            ]
        if len(fields) != len(self.header.names):
            raise _RowError(
                f"has {len(fields)} fields; the header names {len(self.header.names)} "
                f"({', '.join(self.header.names)})"
            )
        return fields

    def _split(self, fields: list[bytes]) -> str | None:
        if self.header.usage is None:
            word = PurePosixPath(self.name).stem.lower()
            return SPLIT_OF_WORD.get(word)
        word = fields[self.header.usage].strip().decode("utf-8", "replace")
        if word.lower() not in SPLIT_OF_WORD:
            raise _RowError(
                f"has {self.header.names[self.header.usage]} {word[:40]!r}; "
                "known: Training, PublicTest, PrivateTest, train, validation, test"
            )
        return SPLIT_OF_WORD[word.lower()]

    def _group_of(self, fields: list[bytes], source: str) -> str | None:
        if self._group is None:
            return None
        group = fields[self._group].strip().decode("utf-8", "backslashreplace")
        if not group:
            column = self.header.names[self._group]
            raise DataError(f"{source} has nothing in {column!r}, the column of --group-by")
        return group


class _RowError(ValueError):
    """A row is wrong; the message lacks its place."""
