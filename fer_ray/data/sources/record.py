"""What every reader hands over: one labelled image, not yet decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_ray.data.sources.naming import Labels
from fer_ray.errors import DecodeError
from fer_ray.images.decode import decode

Pixels = npt.NDArray[np.uint8]

_DIGITS_AND_BLANKS = b"0123456789 \t"


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a source.

    Attributes:
        source: its path inside the source, or file and row.
        split: train, validation or test; None where the source names none.
        label: class name.
        payload: its bytes as they stand in the source.
        decode: makes uint8 [size, size] of payload and size; raises DecodeError.
        group: what must stay in one split, such as the person.
        votes: FER+ votes for the seven expressions in canonical order, one byte each.
        fault: why this record cannot be used; the rest is then void.
    """

    source: str
    split: str | None
    label: str
    payload: bytes
    decode: Callable[[bytes, int], Pixels]
    group: str | None = None
    votes: bytes | None = None
    fault: str | None = None


@dataclass
class Source:
    """An opened source.

    Attributes:
        form: what it is, in words.
        records: its images; read once.
        labels: how its labels are read; says at the end what was decided.
        notes: what else the user should know; grows while records are read.
    """

    form: str
    records: Iterator[Record]
    labels: Labels
    notes: list[str]


def image_pixels(payload: bytes, size_px: int) -> Pixels:
    """An image file, through the one decoder."""
    return decode(payload, size_px).pixels


def text_pixels(payload: bytes, size_px: int, *, side: int) -> Pixels:
    """Pixels as numbers in text, row by row.

    Args:
        payload: `side * side` whole numbers in 0..255 with blanks between.
        size_px: side of the result; another one goes through the one decoder.
        side: of the square in the text, pixels.

    Raises:
        DecodeError: `not_pixels`.
    """
    if payload.translate(None, _DIGITS_AND_BLANKS):
        word = next(word for word in payload.split() if not word.isdigit())
        shown = word[:20].decode("utf-8", "backslashreplace")
        raise DecodeError(
            f"has pixel value {shown!r}; each is a whole number in 0..255", "not_pixels"
        )
    values = np.fromstring(payload, dtype=np.int64, sep=" ") if payload.strip() else np.empty(0)
    if len(values) != side * side:
        raise DecodeError(
            f"has {len(values):,} pixels; {side} x {side} = {side * side:,} must be there",
            "not_pixels",
        )
    if values.max() > 255:
        raise DecodeError(
            f"has pixel value {int(values.max())}; each is a whole number in 0..255", "not_pixels"
        )
    pixels = values.astype(np.uint8).reshape(side, side)
    if side == size_px:
        return pixels
    return image_pixels(b"P5\n%d %d\n255\n" % (side, side) + pixels.tobytes(), size_px)


def side_of(payload: bytes) -> int:
    """The side of the square that a first row of pixels makes; 48 where it makes none."""
    count = len(payload.split())
    side = math.isqrt(count)
    return side if side * side == count and side > 0 else 48
