"""Bytes and JSON of a bundle's files, read as if an attacker had written them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from fer_ray.bundle import limits
from fer_ray.errors import BundleError

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_BRACKET = re.compile(r"[\[\]{}]")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def open_listed(directory: Path, name: str) -> BufferedReader:
    """Open a file that a manifest lists: a regular file inside the bundle, not too large.

    A pipe or a device is refused before it is opened, for the opening alone may wait for ever. A
    link that leads out is refused because the comparison of hashes would tell what lies there.

    Raises:
        BundleError: it is none.
    """
    path = directory / name
    root, real = os.path.realpath(directory), Path(os.path.realpath(path))
    if not real.is_relative_to(root):
        raise BundleError(
            f"{path} is a link that leads out of the bundle",
            "Copy the bundle with its links followed (cp -rL).",
        )
    try:
        if not stat.S_ISREG(real.stat().st_mode):
            raise BundleError(f"{path} is not a regular file")
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is missing", "Copy the bundle again from where it came."
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    file = os.fdopen(descriptor, "rb")
    size, most = os.fstat(descriptor).st_size, limits.MAX_FILE_BYTES[Path(name).name]
    if size > most:
        file.close()
        raise BundleError(f"{path} has {size:,} bytes; at most {most:,} are read")
    return file


def read_listed(directory: Path, name: str) -> bytes:
    """All bytes of a listed file.

    Raises:
        BundleError: see `open_listed`.
    """
    with open_listed(directory, name) as file:
        return file.read(limits.MAX_FILE_BYTES[Path(name).name])


def sha256_of(directory: Path, name: str) -> str:
    """sha256 of a listed file, in hexadecimal, read in small pieces.

    Raises:
        BundleError: see `open_listed`.
    """
    with open_listed(directory, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_document(directory: Path, name: str) -> dict[str, Any]:
    """A listed file that holds one JSON object.

    Raises:
        BundleError: it does not, or not within the limits; see `parse_json`.
    """
    document = parse_json(read_listed(directory, name), str(directory / name))
    if not isinstance(document, dict):
        raise BundleError(f"{directory / name} must hold a JSON object")
    return document


def parse_json(data: bytes, place: str) -> Any:
    """Parse JSON within limits of depth and count; no NaN, no infinity, no repeated key.

    Args:
        data: UTF-8.
        place: how errors name it.

    Raises:
        BundleError: it breaks a rule; which one.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{place} is not UTF-8: byte {error.start}") from error
    _check_size(_STRING.sub("", text), place)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_small,
        )
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BundleError(f"{place} holds half a character (a lone surrogate)") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{place} is not valid JSON: {str(error)[:200]}") from error
    return document


def _check_size(bare: str, place: str) -> None:
    """Depth and number of values of JSON text whose strings were taken out."""
    if bare.count(",") + bare.count("[") + bare.count("{") > limits.MAX_JSON_VALUES:
        raise BundleError(f"{place} holds more than {limits.MAX_JSON_VALUES:,} JSON values")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket.group() in "[{" else -1
        if depth > limits.MAX_JSON_DEPTH:
            raise BundleError(f"{place} nests JSON deeper than {limits.MAX_JSON_DEPTH} levels")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise ValueError(f"the key {name[:80]!r} stands twice")
        document[name] = value
    return document


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if len(text) > limits.MAX_NUMBER_CHARS or not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large or too long")
    return value


def _small(text: str) -> int:
    if len(text) > limits.MAX_NUMBER_CHARS:
        raise ValueError(f"the number {text[:40]}... is too long")
    return int(text)
