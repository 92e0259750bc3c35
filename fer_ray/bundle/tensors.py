"""The header of a safetensors file, checked before any tensor is read.

Layout: 8 bytes, little-endian, length of the header; the header, JSON; the tensors' bytes. See
https://github.com/huggingface/safetensors for the format; the rules here are its own and stricter.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from fer_ray.bundle import limits
from fer_ray.bundle.reading import parse_json
from fer_ray.errors import BundleError

_ITEM_BYTES = {"F32": 4, "I64": 8, "U8": 1}
"""Types that occur in a bundle; no other is read."""

NAME_OF_DTYPE = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}


@dataclass(frozen=True)
class Shape:
    """Type and shape of one tensor, as its file says.

    Attributes:
        dtype: `F32`, `I64` or `U8`.
        shape: its sides.
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def read_header(file: BufferedReader, place: str) -> dict[str, Shape]:
    """Check the header against the file's size; the tensors must fill the rest without a gap.

    Args:
        file: at its start.
        place: how errors name it.

    Raises:
        BundleError: it breaks a rule; which one.
    """
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise BundleError(f"{place} has {size} bytes: too short for a safetensors file")
    length = int.from_bytes(file.read(8), "little")
    if length > min(limits.MAX_HEADER_BYTES, size - 8):
        raise BundleError(
            f"{place} claims a header of {length:,} bytes; the file has {size:,}, and at most "
            f"{limits.MAX_HEADER_BYTES:,} are read"
        )
    header = parse_json(file.read(length), f"the header of {place}")
    if not isinstance(header, dict) or len(header) > limits.MAX_TENSORS:
        raise BundleError(f"{place}: the header must map at most {limits.MAX_TENSORS} names")
    header.pop("__metadata__", None)
    shapes, spans = {}, []
    for name, entry in header.items():
        shapes[name], span = _entry(name, entry, place)
        spans.append((*span, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise BundleError(f"{place}: {name[:80]!r} overlaps another tensor or leaves a gap")
        end = stop
    if end != size - 8 - length:
        raise BundleError(f"{place}: its tensors need {end:,} bytes, it has {size - 8 - length:,}")
    return shapes


def _entry(name: str, entry: Any, place: str) -> tuple[Shape, tuple[int, int]]:
    """One line of the header: what it is, and its first and last byte."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise BundleError(f"{place}: {name[:80]!r} must have dtype, shape and data_offsets")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise BundleError(
            f"{place}: {name[:80]!r} has dtype {str(dtype)[:20]!r}; known: {', '.join(_ITEM_BYTES)}"
        )
    if not _counts(shape) or len(shape) > 4 or not _counts(span) or len(span) != 2:
        raise BundleError(f"{place}: {name[:80]!r} has a shape or offsets that cannot be")
    if math.prod(shape) * _ITEM_BYTES[dtype] != span[1] - span[0]:
        raise BundleError(
            f"{place}: {name[:80]!r} of shape {shape} needs {math.prod(shape) * _ITEM_BYTES[dtype]}"
            f" bytes, its offsets give {span[1] - span[0]}"
        )
    return Shape(dtype, tuple(shape)), (span[0], span[1])


def _counts(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def read_tensors(file: BufferedReader, wanted: dict[str, Shape], place: str) -> dict[str, Tensor]:
    """Read exactly the tensors that are wanted, each finite.

    Args:
        file: at its start.
        wanted: names with types and shapes.
        place: how errors name it.

    Raises:
        BundleError: others are there, some are missing, differ, or are not finite.
    """
    shapes = read_header(file, place)
    if missing := sorted(set(wanted) - set(shapes)):
        raise BundleError(f"{place} does not fit the network: {missing[0]!r} is missing")
    if surplus := sorted(set(shapes) - set(wanted)):
        raise BundleError(f"{place} does not fit the network: {surplus[0][:80]!r} is surplus")
    for name, shape in shapes.items():
        if shape != wanted[name]:
            raise BundleError(f"{place}: {name} is {shape}, the network wants {wanted[name]}")
    file.seek(0)
    tensors = load(file.read())
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{place}: {name} holds numbers that are not finite")
    return tensors
