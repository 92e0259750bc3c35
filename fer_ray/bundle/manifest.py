"""`bundle.json`: what a bundle is made of, and its identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray.bundle import limits
from fer_ray.bundle.reading import read_document, sha256_of
from fer_ray.errors import BundleError

FORMAT = 1
MANIFEST = "bundle.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
CALIBRATION = "calibration.json"
METRICS = "metrics.json"
LINEAGE = "lineage.json"
GOLDEN = "golden.safetensors"
CARD = "README.md"
LICENSE = "LICENSE-weights"
FILES = (
    WEIGHTS,
    CONFIG,
    PREPROCESSOR,
    CALIBRATION,
    METRICS,
    LINEAGE,
    GOLDEN,
    CARD,
    LICENSE,
)
IDENTITY = (WEIGHTS, CONFIG, PREPROCESSOR, CALIBRATION)
"""Files that decide an answer; `bundle_id` is a hash over them."""

ENSEMBLE = "ensemble"
_KEYS = {"format", "bundle_id", "files", "sha256", "kind", "members"}


@dataclass(frozen=True)
class Manifest:
    """A `bundle.json` whose rules hold; the files it lists are not looked at.

    Attributes:
        bundle_id: sha256 over what decides an answer.
        files: name -> sha256.
        members: of an ensemble, folder -> bundle_id, in order; empty for a network.
        digest: sha256 of the manifest's own canonical body, which covers every file.
    """

    bundle_id: str
    files: dict[str, str]
    members: dict[str, str]
    digest: str


def files_of(*, ensemble: bool) -> tuple[str, ...]:
    """The files of a bundle; an ensemble's weights are its members'."""
    return tuple(name for name in FILES if not (ensemble and name == WEIGHTS))


def member_folder(number: int) -> str:
    """Where an ensemble keeps its member of that number, from 0."""
    return f"members/{number}"


def bundle_id(digests: dict[str, str], members: dict[str, str] | None = None) -> str:
    """sha256 over the digests of the files, and the ids of the members, that decide an answer."""
    lines = [f"{name} {digests[name]}" for name in IDENTITY if name in digests]
    lines += [f"{folder} {identity}" for folder, identity in (members or {}).items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def manifest_of(directory: Path, members: dict[str, str] | None = None) -> dict[str, Any]:
    """The manifest of a directory whose other files are complete.

    Args:
        directory: of a bundle.
        members: of an ensemble, folder -> bundle_id.
    """
    names = files_of(ensemble=members is not None)
    digests = {name: sha256_of(directory, name) for name in names}
    body = {"format": FORMAT, "bundle_id": bundle_id(digests, members), "files": digests}
    if members is not None:
        body |= {"kind": ENSEMBLE, "members": members}
    return {**body, "sha256": _canonical_digest(body)}


def _canonical_digest(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Read `bundle.json` and check it by itself.

    Raises:
        BundleError: there is none, its format version is unknown, it was changed, or it lists
            other files than a bundle has.
    """
    place = directory / MANIFEST
    if not place.exists():
        raise BundleError(
            f"{directory} is not a bundle: it has no {MANIFEST}",
            "Give a bundle's directory, or a run's.",
        )
    document = read_document(directory, MANIFEST)
    version = document.get("format")
    if type(version) is not int or version != FORMAT:
        raise BundleError(
            f"{place} has bundle format {str(version)[:40]}; this fer-ray reads format {FORMAT}",
            "Read it with the fer-ray that wrote it, or a newer one.",
        )
    body = {key: value for key, value in document.items() if key != "sha256"}
    if document.get("sha256") != _canonical_digest(body):
        raise BundleError(f"{place} was changed: its own sha256 does not hold")
    if unknown := sorted(set(document) - _KEYS):
        raise BundleError(f"{place} has the key {unknown[0][:80]!r}, which format 1 has not")
    members = _members(document, place)
    files = _files(document.get("files"), place, ensemble=bool(members))
    if document.get("bundle_id") != bundle_id(files, members):
        raise BundleError(f"{place} names a bundle_id that is not its own")
    return Manifest(document["bundle_id"], files, members, document["sha256"])


def _files(listed: object, place: Path, *, ensemble: bool) -> dict[str, str]:
    names = files_of(ensemble=ensemble)
    if not isinstance(listed, dict):
        raise BundleError(f"{place}: files must map names to sha256")
    if others := sorted(set(listed) ^ set(names)):
        raise BundleError(
            f"{place} must list exactly {', '.join(names)}; {others[0][:80]!r} is missing or not "
            "one of them"
        )
    for name, digest in listed.items():
        _check_digest(digest, f"{place}: the sha256 of {name}")
    return listed


def _members(document: dict[str, Any], place: Path) -> dict[str, str]:
    kind, members = document.get("kind"), document.get("members")
    if kind is None and members is None:
        return {}
    if kind != ENSEMBLE or not isinstance(members, dict):
        raise BundleError(f"{place}: kind must be {ENSEMBLE!r} with members, or both absent")
    if not 2 <= len(members) <= limits.MAX_MEMBERS:
        raise BundleError(
            f"{place} has {len(members)} member(s); an ensemble has 2 to {limits.MAX_MEMBERS}"
        )
    folders = [member_folder(number) for number in range(len(members))]
    if set(members) != set(folders):
        raise BundleError(f"{place}: members must be {folders[0]} to {folders[-1]}")
    for folder, identity in members.items():
        _check_digest(identity, f"{place}: the bundle_id of {folder}")
    if len(set(members.values())) != len(members):
        raise BundleError(f"{place} has the same member twice")
    return {folder: members[folder] for folder in folders}


def _check_digest(value: object, what: str) -> None:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise BundleError(f"{what} must be 64 hexadecimal digits")


def check_manifest(directory: Path) -> tuple[str, list[str]]:
    """A bundle's id and warnings, after its manifest and every listed file were checked.

    Raises:
        BundleError: see `read_manifest` and `check_files`.
    """
    manifest = read_manifest(directory)
    return manifest.bundle_id, check_files(directory, manifest)


def check_files(directory: Path, manifest: Manifest) -> list[str]:
    """Compare every listed file with its sha256.

    Returns:
        warnings: an edited or missing model card, which decides no answer.

    Raises:
        BundleError: a file is missing, changed, too large, no regular file or outside.
    """
    warnings = []
    for name, digest in manifest.files.items():
        try:
            actual = sha256_of(directory, name)
            if actual != digest:
                raise BundleError(
                    f"{directory / name} was changed: sha256 is {actual[:16]}..., "
                    f"the manifest says {digest[:16]}...",
                    "Copy the bundle again from where it came.",
                )
        except BundleError as error:
            if name != CARD:
                raise
            warnings.append(f"{error.message}: the model card was edited")
    return warnings
