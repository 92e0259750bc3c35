"""FER+ votes (Barsoum et al. 2016, arXiv 1608.01041): ten annotators' words on each image.

    Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF

Rows stand in the order of `fer2013.csv` and are joined by it; Usage must agree row by row. Rows
without an image name (173 in the published file, all "not a face") are left out. The votes for
contempt, unknown and NF are not kept: the others stand in canonical order, so a row may sum to
less than ten, and to nought where the annotators saw none of the seven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from fer_ray.data.sources.bounded import BoundedReader, lines
from fer_ray.data.sources.naming import SPLIT_OF_PREFIX, SYNONYMS
from fer_ray.errors import DataError
from fer_ray.labels import EXPRESSIONS

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)


@dataclass(frozen=True, slots=True)
class VoteRow:
    """Votes on one image.

    Attributes:
        split: by its Usage.
        dropped: it has no image name: FER+ leaves it out.
        counts: votes for the expressions in canonical order, one byte each.
    """

    split: str
    dropped: bool
    counts: bytes


def read_votes(path: Path, notes: list[str]) -> Iterator[VoteRow]:
    """Rows of `fer2013new.csv`; says at its end how many have no image name.

    Raises:
        DataError: not that file, or a damaged row.
    """
    names = HEADER.split(",")
    columns = [names.index(_column_of(name, names)) for name in EXPRESSIONS]
    dropped = empty = 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"votes {path} cannot be read: {error.strerror}") from error
    with file:
        rows = lines(BoundedReader(cast(BinaryIO, file), None, str(path)), str(path))
        first = next(rows, (b"", True))[0].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        if [name.strip() for name in first.split(",")] != names:
            raise DataError(f"{path} is no FER+ file: its first line is not {HEADER}")
        for number, (line, _) in enumerate(rows, start=1):
            if not line.strip():
                continue
            row = _row(line, columns, len(names), f"{path} row {number}")
            dropped += row.dropped
            empty += not row.dropped and not any(row.counts)
            yield row
    if dropped:
        notes.append(f"{dropped:,} row(s) without an image name left out, as FER+ does")
    if empty:
        notes.append(f"{empty:,} image(s) have no vote for any of the seven expressions")


def _column_of(name: str, names: list[str]) -> str:
    return next(column for column in names if SYNONYMS.get(column, column) == name)


def _row(line: bytes, columns: list[int], num_fields: int, place: str) -> VoteRow:
    fields = [field.strip() for field in line.decode("utf-8", "replace").split(",")]
    if len(fields) != num_fields or fields[0] not in SPLIT_OF_PREFIX:
        raise DataError(
            f"{place} has {len(fields)} fields and Usage {fields[0][:40]!r}; "
            f"{num_fields} and one of {', '.join(SPLIT_OF_PREFIX)} must be there"
        )
    votes = fields[2:]
    if not all(vote.isascii() and vote.isdigit() and int(vote[:4]) <= 255 for vote in votes):
        raise DataError(f"{place} has votes {','.join(votes)[:80]}; each is a number in 0..255")
    counts = bytes(int(fields[column]) for column in columns)
    return VoteRow(SPLIT_OF_PREFIX[fields[0]], not fields[1], counts)
