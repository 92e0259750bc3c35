"""`bundle.json`: what a bundle is made of, and its identity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fer_ray.errors import BundleError, UserError
from fer_ray.store import read_json

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

MAX_FILE_BYTES = 1024**3


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_id(digests: dict[str, str]) -> str:
    """sha256 over the digests of the files that decide an answer."""
    text = "\n".join(f"{name} {digests[name]}" for name in IDENTITY)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_of(directory: Path) -> dict[str, Any]:
    """The manifest of a directory whose other files are complete."""
    digests = {name: sha256_of(directory / name) for name in FILES}
    body = {"format": FORMAT, "bundle_id": bundle_id(digests), "files": digests}
    return {**body, "sha256": _canonical_digest(body)}


def _canonical_digest(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_manifest(directory: Path) -> tuple[str, list[str]]:
    """Check every listed file.

    Returns:
        the bundle's id, and warnings (an edited model card).

    Raises:
        BundleError: no bundle, an unknown format version, or a file that is missing, changed,
            too large or named so that it leaves the directory.
    """
    if not (directory / MANIFEST).is_file():
        raise BundleError(
            f"{directory} is not a bundle: it has no {MANIFEST}",
            "Give a bundle's directory, or a run's.",
        )
    try:
        document = read_json(directory / MANIFEST)
    except UserError as error:
        raise BundleError(error.message) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        version = document.get("format") if isinstance(document, dict) else None
        raise BundleError(
            f"{directory} has bundle format {version!r}; this fer-ray reads format {FORMAT}"
        )
    body = {key: value for key, value in document.items() if key != "sha256"}
    if document.get("sha256") != _canonical_digest(body):
        raise BundleError(f"{directory / MANIFEST} was changed: its own sha256 does not hold")
    digests = document.get("files")
    if not isinstance(digests, dict) or set(digests) != set(FILES):
        raise BundleError(f"{directory / MANIFEST} must list exactly {', '.join(FILES)}")
    warnings = []
    for name in FILES:
        fault = _fault(directory / name, digests[name])
        if fault and name == CARD:
            warnings.append(f"{directory / name} {fault}: the model card was edited")
        elif fault:
            raise BundleError(
                f"{directory / name} {fault}", "Copy the bundle again from where it came."
            )
    identity = bundle_id(digests)
    if document.get("bundle_id") != identity:
        raise BundleError(f"{directory / MANIFEST} names a bundle_id that is not its own")
    return identity, warnings


def _fault(path: Path, digest: object) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size > MAX_FILE_BYTES:
        return f"has more than {MAX_FILE_BYTES:,} bytes"
    actual = sha256_of(path)
    if actual != digest:
        return f"was changed: sha256 is {actual[:16]}..., the manifest says {str(digest)[:16]}..."
    return None
