"""Bundles in object storage (`s3://`, `gs://`, whatever pyarrow knows), through a local copy.

    manifest  read first, checked by itself: it says which files there are and their sha256
    files     exactly those, no other key, each within its limit and compared with its sha256
    copy      $XDG_CACHE_HOME/fer-ray/bundles/<sha256 of the manifest>, readable by its owner only

The copy is kept, for a bundle never changes: the next time only the manifests are read. Whoever
loads it checks it again like any other bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from fer_ray.bundle import limits, manifest
from fer_ray.bundle.manifest import Manifest
from fer_ray.data.sources.remote import shown
from fer_ray.errors import BundleError

_CHUNK_BYTES = 1 << 20
BEST = "best.json"
"""In a run in object storage: `{"bundle": "bundles/7"}`."""
_MAX_BEST_BYTES = 1000


def cache_directory() -> Path:
    """Where copies of remote bundles are kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "fer-ray" / "bundles"


def fetch_bundle(uri: str) -> Path:
    """Copy a bundle to this machine, unless the same is there already.

    Args:
        uri: its address, the place where its `bundle.json` lies; or a run's, for its best.

    Returns:
        the copy's directory.

    Raises:
        BundleError: no such place, no access, or what lies there breaks a rule.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=cache))  # mode 0700
    try:
        storage, root = pa.fs.FileSystem.from_uri(uri)
        root = _best_of_run(storage, root.rstrip("/"))
        listed = _fetch_manifest(storage, root, temporary, shown(uri))
        target = cache / listed.digest
        if _holds(target):
            return target
        _fetch(storage, root, temporary, listed, shown(uri))
        shutil.rmtree(target, ignore_errors=True)
        # Another process may have been faster; its copy is the same bundle.
        with contextlib.suppress(OSError):
            os.replace(temporary, target)
        return target
    except (pa.ArrowException, OSError) as error:
        raise BundleError(f"{shown(uri)} cannot be read: {str(error)[:300]}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _best_of_run(storage: pa.fs.FileSystem, root: str) -> str:
    """Where the best bundle of a run lies; of any other folder itself."""
    path = f"{root}/{BEST}"
    if storage.get_file_info(path).type != pa.fs.FileType.File:
        return root
    with storage.open_input_stream(path) as stream:
        text = stream.read(_MAX_BEST_BYTES).decode("utf-8", "replace")
    found = re.fullmatch(r'\{"bundle": "(bundles/[0-9]+(-epoch-[0-9]+)?)"\}', text)
    if found is None:
        raise BundleError(f"{BEST} names no bundle of its run: {text[:80]!r}")
    return f"{root}/{found[1]}"


def _holds(target: Path) -> bool:
    """Whether a copy is whole: where a file was damaged or removed, all are fetched again."""
    try:
        manifest.check_manifest(target)
        for folder in manifest.read_manifest(target).members:
            manifest.check_manifest(target / folder)
    except BundleError:
        return False
    return True


def _fetch(
    storage: pa.fs.FileSystem, root: str, directory: Path, listed: Manifest, place: str
) -> None:
    """Copy every listed file, and those of members."""
    for name, digest in listed.files.items():
        edited = _copy(storage, root, directory, name, place) != digest
        if edited and name != manifest.CARD:
            raise BundleError(f"{place}/{name} was changed: its sha256 is not the manifest's")
    for folder in listed.members:
        member = _fetch_manifest(
            storage, f"{root}/{folder}", directory / folder, f"{place}/{folder}"
        )
        if member.members:
            raise BundleError(f"{place}/{folder} is an ensemble: they do not nest")
        _fetch(storage, f"{root}/{folder}", directory / folder, member, f"{place}/{folder}")


def _fetch_manifest(storage: pa.fs.FileSystem, root: str, directory: Path, place: str) -> Manifest:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if storage.get_file_info(f"{root}/{manifest.MANIFEST}").type != pa.fs.FileType.File:
        raise BundleError(
            f"{place} is not a bundle: it has no {manifest.MANIFEST}",
            "Give the address of the folder that holds it.",
        )
    _copy(storage, root, directory, manifest.MANIFEST, place)
    return manifest.read_manifest(directory)


def _copy(storage: pa.fs.FileSystem, root: str, directory: Path, name: str, place: str) -> str:
    """Copy one file within its limit; gives its sha256."""
    digest, size, most = hashlib.sha256(), 0, limits.MAX_FILE_BYTES[name]
    try:
        with (
            storage.open_input_stream(f"{root}/{name}") as source,
            (directory / name).open("xb") as target,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > most:
                    raise BundleError(f"{place}/{name} has more than {most:,} bytes")
                digest.update(chunk)
                target.write(chunk)
    except FileNotFoundError as error:
        if name == manifest.CARD:
            return ""
        raise BundleError(f"{place}/{name} is missing") from error
    return digest.hexdigest()
