"""Reading a bundle: hashes, limits, shapes, and the golden answers, before anything is served."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from torch import Tensor, nn

from fer_ray.bundle import limits, manifest
from fer_ray.bundle.contents import CalibrationConfig, Contents
from fer_ray.bundle.documents import (
    Lineage,
    Metrics,
    check_agreement,
    check_open,
    read_config,
    read_fields,
    read_model,
    read_recipe,
)
from fer_ray.bundle.ensemble import shared_recipe, vote
from fer_ray.bundle.network import empty_network, fill
from fer_ray.bundle.reading import open_listed, read_document
from fer_ray.bundle.tensors import Shape, read_header, read_tensors
from fer_ray.errors import BundleError, UserError
from fer_ray.images.preprocess import Preprocess
from fer_ray.models.inference import logits_of

SHIPPED = "fer2013-small"
GOLDEN_TOLERANCE = 1.0e-3
"""Largest difference of a golden logit in fp32, on torch: other processors round differently. Where
the largest logit exceeds 10, ten-thousandths of it: rounding grows with the numbers."""

_GOLDEN_BATCH = 4
"""Images a forward pass of the check: what an unknown network may take of memory."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: its directory.
        id: sha256 over weights, config, preprocessor and calibration.
        contents: what it says.
        model: the network in fp32, evaluation mode, on the CPU.
        golden_images: uint8 [16, H, W].
        golden_logits: float32 [16, C].
        warnings: said to the user, such as an edited model card.
        members: of an ensemble, each a checked bundle; empty for a network.
    """

    path: Path
    id: str
    contents: Contents
    model: nn.Module
    golden_images: Tensor
    golden_logits: Tensor
    warnings: tuple[str, ...]
    members: tuple[Bundle, ...] = ()

    @property
    def title(self) -> str:
        """Name, short id and figures, in one line."""
        metrics = self.contents.metrics.get("validation") or {}
        text = f"{self.contents.name} ({self.id[:12]})"
        if self.members:
            text += f", {len(self.members)} members"
        if "accuracy" in metrics:
            text += f", validation accuracy {100 * metrics['accuracy']:.1f} %"
        if "majority_accuracy" in metrics:
            text += f" (majority {100 * metrics['majority_accuracy']:.1f} %)"
        if self.contents.lineage.get("data", {}).get("fingerprint") == "sample":
            text += " on synthetic faces"
        return text


def find_bundle(place: str | None) -> Path:
    """A bundle's directory from what the user gave: a bundle, a run, an address, or nothing.

    A bundle in object storage (`s3://`, `gs://`) is copied to this machine first.

    Raises:
        BundleError: there is none.
    """
    if place is None:
        return Path(str(resources.files("fer_ray"))) / "pretrained" / SHIPPED
    if "://" in place:
        from fer_ray.bundle.remote import fetch_bundle

        return fetch_bundle(place)
    path = Path(place)
    if (path / "run.json").is_file():
        best = path / "best"
        if not best.exists():
            raise BundleError(f"the run {path} has no best bundle yet")
        return Path(os.path.realpath(best))
    if not path.exists():
        raise BundleError(f"there is no bundle {place}", "Give a bundle's or a run's directory.")
    return path


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: anything about it is wrong.
    """
    return _load(path, manifest.read_manifest(path))


def _load(path: Path, listed: manifest.Manifest) -> Bundle:
    warnings = manifest.check_files(path, listed)
    try:
        members = _members(path, listed)
        contents = _contents(path, ensemble=bool(members))
        model = _vote(path, contents, members) if members else _network(path, contents)
        images, logits = _golden(path, len(contents.class_names))
        warnings += [warning for member in members for warning in member.warnings]
        bundle = Bundle(
            path, listed.bundle_id, contents, model, images, logits, tuple(warnings), members
        )
        check_golden(bundle)
    except BundleError:
        raise
    except UserError as error:
        raise BundleError(f"{path} cannot be read: {str(error)[:500]}") from error
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise BundleError(
            f"{path} cannot be read: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    return bundle


def check_golden(bundle: Bundle) -> None:
    """Compare the network's answers on the golden images with those it was saved with.

    Raises:
        BundleError: an answer differs by more than rounding explains; see `GOLDEN_TOLERANCE`.
    """
    preprocess = Preprocess(bundle.contents.recipe)
    logits = logits_of(
        bundle.model,
        preprocess,
        preprocess.static(bundle.golden_images),
        precision="fp32",
        batch_size=_GOLDEN_BATCH,
    )
    difference = float((logits - bundle.golden_logits).abs().max())
    tolerance = GOLDEN_TOLERANCE * max(1.0, float(bundle.golden_logits.abs().max()) / 10)
    if not difference <= tolerance:
        raise BundleError(
            f"{bundle.path}: golden logits differ by {difference:.2g}; "
            f"at most {tolerance:.2g} is rounding"
        )


def _contents(path: Path, *, ensemble: bool) -> Contents:
    """Every document but the manifest, checked."""
    places = {name: str(path / name) for name in manifest.FILES}
    config = read_config(read_document(path, manifest.CONFIG), places[manifest.CONFIG])
    recipe = read_recipe(read_document(path, manifest.PREPROCESSOR), places[manifest.PREPROCESSOR])
    check_agreement(config, recipe, places[manifest.CONFIG])
    calibration = _calibration(path)
    metrics = read_document(path, manifest.METRICS)
    check_open(Metrics, metrics, places[manifest.METRICS])
    lineage = read_document(path, manifest.LINEAGE)
    check_open(Lineage, lineage, places[manifest.LINEAGE])
    if ensemble != (config.architecture == "ensemble"):
        raise BundleError(
            f"{places[manifest.CONFIG]}: architecture is {config.architecture}, but "
            f"{manifest.MANIFEST} names {'members' if ensemble else 'no members'}"
        )
    model = None if ensemble else read_model(config, places[manifest.CONFIG])
    names = tuple(config.label_names)
    return Contents(config.fer_ray.name, model, names, recipe, calibration, metrics, lineage)


def _calibration(path: Path) -> CalibrationConfig:
    place = str(path / manifest.CALIBRATION)
    calibration = read_fields(CalibrationConfig, read_document(path, manifest.CALIBRATION), place)
    if not 0.01 <= calibration.temperature <= 100:
        raise BundleError(
            f"{place}: temperature must lie in 0.01..100, but got {calibration.temperature:g}"
        )
    for name in ("threshold", "target_precision", "coverage"):
        value = getattr(calibration, name)
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise BundleError(f"{place}: {name} must lie in 0..1, but got {value:g}")
    return calibration


def _network(path: Path, contents: Contents) -> nn.Module:
    assert contents.model is not None
    network = empty_network(
        contents.model, contents.recipe, len(contents.class_names), str(path / manifest.CONFIG)
    )
    return fill(network, path)


def _golden(path: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, H, W] and logits float32 [N, C]."""
    place = str(path / manifest.GOLDEN)
    with open_listed(path, manifest.GOLDEN) as file:
        given = read_header(file, place)
        images = given.get("images", Shape("", ()))
        count, *sides = images.shape or (0,)
        if (
            images.dtype != "U8"
            or not 1 <= count <= limits.MAX_GOLDEN_IMAGES
            or len(sides) != 2
            or not all(1 <= side <= limits.MAX_SIDE_PX for side in sides)
        ):
            raise BundleError(
                f"{place}: golden images must be U8[N, H, W], N in "
                f"1..{limits.MAX_GOLDEN_IMAGES}, H and W in 1..{limits.MAX_SIDE_PX}, "
                f"but got {images}"
            )
        file.seek(0)
        wanted = {"images": images, "logits": Shape("F32", (count, num_classes))}
        tensors = read_tensors(file, wanted, place)
    return tensors["images"], tensors["logits"]


# --- ensembles ------------------------------------------------------------------------------------


def _members(path: Path, listed: manifest.Manifest) -> tuple[Bundle, ...]:
    """Load an ensemble's members, each with every check of its own."""
    manifests, size = [], 0
    for folder, identity in listed.members.items():
        member = manifest.read_manifest(_inside(path, folder))
        if member.members:
            raise BundleError(f"{path / folder} is an ensemble: they do not nest")
        if member.bundle_id != identity:
            raise BundleError(
                f"{path / folder} is another bundle ({member.bundle_id[:12]}) than the ensemble's "
                f"manifest says ({identity[:12]})"
            )
        with open_listed(path / folder, manifest.WEIGHTS) as file:
            size += os.fstat(file.fileno()).st_size
        manifests.append((path / folder, member))
    if size > limits.MAX_WEIGHTS_BYTES:
        raise BundleError(
            f"{path}: the members' weights have {size:,} bytes together; "
            f"at most {limits.MAX_WEIGHTS_BYTES:,} are read"
        )
    return tuple(_load(place, member) for place, member in manifests)


def _inside(path: Path, folder: str) -> Path:
    root, real = os.path.realpath(path), os.path.realpath(path / folder)
    if os.path.commonpath([root, real]) != root:
        raise BundleError(f"{path / folder} is a link that leads out of the bundle")
    return path / folder


def _vote(path: Path, contents: Contents, members: tuple[Bundle, ...]) -> nn.Module:
    """The network of an ensemble, its members' classes and input being its own."""
    for member in members:
        if member.contents.class_names != contents.class_names:
            raise BundleError(
                f"{path / manifest.CONFIG}: label_names are not those of {member.path}"
            )
        if member.contents.recipe.source_px != contents.recipe.source_px:
            raise BundleError(
                f"{path / manifest.PREPROCESSOR}: {member.path} takes images of another size"
            )
    if contents.recipe != shared_recipe([member.contents.recipe for member in members]):
        raise BundleError(
            f"{path / manifest.PREPROCESSOR} is not what the members' preprocessing has in common"
        )
    return vote_of(members)


def vote_of(members: tuple[Bundle, ...]) -> nn.Module:
    """The network that averages members' calibrated probabilities."""
    return vote(
        [member.model for member in members],
        [member.contents.recipe for member in members],
        [member.contents.calibration.temperature for member in members],
    )
