"""From several bundles to one that votes softly, with its own figures and calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fer_ray.bundle import limits, manifest
from fer_ray.bundle.card import model_card
from fer_ray.bundle.contents import CalibrationConfig, Contents, write_bundle
from fer_ray.bundle.ensemble import shared_recipe
from fer_ray.bundle.load import Bundle, load_bundle, vote_of
from fer_ray.data.prepared import map_classes, open_prepared, read_split
from fer_ray.errors import BundleError, DataError
from fer_ray.evaluation.calibrate import fit_calibration
from fer_ray.evaluation.evaluate import figures
from fer_ray.evaluation.packing import golden_images, versions
from fer_ray.images.preprocess import Preprocess
from fer_ray.models.build import count_macs, count_parameters
from fer_ray.models.inference import logits_of
from fer_ray.store import require_absent

UNCALIBRATED = CalibrationConfig(temperature=1.0, threshold=0.0, target_precision=0.0, coverage=1.0)
"""The members' mean as it is; every answer counts."""


def make_ensemble(
    members: tuple[Bundle, ...], out: Path, *, name: str, data: Path | None
) -> Bundle:
    """Write an ensemble and load it again; see `fer_ray.api.ensemble`.

    Args:
        members: checked bundles of single networks.
        out: the new directory.
        name: of the ensemble.
        data: a prepared data set, or None.

    Returns:
        the ensemble, checked as any bundle is.

    Raises:
        BundleError: the members do not go together.
        DataError: no such data, or its classes are not the members'.
        OutputExistsError: `out` is there.
    """
    require_absent(out, "the bundle", "Bundles are immutable: choose another --out.")
    check_members(members)
    first = members[0].contents
    recipe = shared_recipe([member.contents.recipe for member in members])
    model = vote_of(members)
    preprocess = Preprocess(recipe)
    metrics: dict[str, Any] = {
        "params": count_parameters(model),
        "macs": sum(_macs(member) for member in members),
    }
    calibration = UNCALIBRATED
    if data is not None:
        images, labels = _validation(data, first)
        static = preprocess.static(torch.from_numpy(images))
        logits = logits_of(model, preprocess, static, precision="fp32").numpy()
        calibration = fit_calibration(logits, labels)
        metrics["validation"] = figures(logits, labels, first.class_names, calibration.temperature)
    contents = Contents(
        name, None, first.class_names, recipe, calibration, metrics, _lineage(name, members)
    )
    paths = tuple(member.path for member in members)
    write_bundle(out, contents, {}, model, golden_images(), model_card(contents), paths)
    return load_bundle(out)


def _macs(member: Bundle) -> int:
    recipe = member.contents.recipe
    return count_macs(member.model, recipe.channels, recipe.crop_px)


def check_members(members: tuple[Bundle, ...]) -> None:
    """Refuse what cannot vote together.

    Raises:
        BundleError: too few or too many, one twice, one that is an ensemble itself, other classes,
            or images decoded at another size.
    """
    if not 2 <= len(members) <= limits.MAX_MEMBERS:
        raise BundleError(
            f"an ensemble has 2 to {limits.MAX_MEMBERS} members, but got {len(members)}"
        )
    first = members[0]
    for number, member in enumerate(members):
        if member.members:
            raise BundleError(
                f"{member.path} is an ensemble, and ensembles do not nest",
                "Give its members, the folders below its members/.",
            )
        if member.id in {other.id for other in members[:number]}:
            raise BundleError(f"{member.path} is the same bundle as another: it would vote twice")
        for what, of in _EQUAL.items():
            if of(member) != of(first):
                raise BundleError(
                    f"{member.path} has {what} {_short(of(member))}, "
                    f"but {first.path} has {_short(of(first))}",
                    "Members of an ensemble must have the same.",
                )
    total = sum((member.path / manifest.WEIGHTS).stat().st_size for member in members)
    if total > limits.MAX_WEIGHTS_BYTES:
        raise BundleError(
            f"the members' weights have {total:,} bytes together; "
            f"at most {limits.MAX_WEIGHTS_BYTES:,} are read"
        )


_EQUAL: dict[str, Callable[[Bundle], Any]] = {
    "the classes": lambda bundle: list(bundle.contents.class_names),
    "the class map": lambda bundle: bundle.contents.lineage["config"]["data"]["classes"],
    "images decoded at (pixels)": lambda bundle: bundle.contents.recipe.source_px,
}


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return text[:120]


def _validation(
    data: Path, contents: Contents
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images and labels of the validation split, in the members' classes."""
    prepared = open_prepared(data)
    if prepared.count("validation") == 0:
        raise DataError(f"{prepared.path} has no validation split")
    classes = contents.lineage["config"]["data"]["classes"]
    split, names = map_classes(read_split(prepared, "validation"), prepared.class_names, classes)
    if names != contents.class_names:
        raise DataError(
            f"the data have the classes {', '.join(names)}, "
            f"but the bundles {', '.join(contents.class_names)}"
        )
    return split.images, split.labels


def _lineage(name: str, members: tuple[Bundle, ...]) -> dict[str, Any]:
    """Where the members come from; their own lineage stands in each."""
    sources = [member.contents.lineage["data"] for member in members]
    prints = sorted({str(source["fingerprint"]) for source in sources})
    names = dict.fromkeys(str(source["name"]) for source in sources)
    classes = members[0].contents.lineage["config"]["data"]["classes"]
    return {
        "config": {"name": name, "data": {"classes": classes}},
        "data": {
            "name": ", ".join(names),
            "fingerprint": prints[0] if len(prints) == 1 else "several",
            "fingerprints": prints,
        },
        "members": [
            {
                "name": member.contents.name,
                "bundle_id": member.id,
                "accuracy": (member.contents.metrics.get("validation") or {}).get("accuracy"),
            }
            for member in members
        ],
        "versions": versions(),
    }
