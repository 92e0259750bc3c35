"""`fer-ray calibrate`: the same network, another temperature and threshold, another bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.card import model_card
from fer_ray.bundle.contents import CalibrationConfig, Contents
from fer_ray.bundle.load import Bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UserError
from fer_ray.evaluation.calibrate import NO_RULE, fit_calibration
from fer_ray.evaluation.evaluate import ECE_BINS, figures, kept_figures, log_softmax
from fer_ray.evaluation.on_split import describe
from fer_ray.evaluation.packing import repack
from fer_ray.evaluation.split_images import SplitImages, read_split_images
from fer_ray.metrics import calibration
from fer_ray.store import require_absent

NUM_FOLDS = 5
_FOLD_SEED = 0

_CARD = """
## Calibrated anew

Bundle `{parent}` with another temperature and threshold, fitted on the validation split of
`{data_name}` (fingerprint `{fingerprint}`); the network is the same. {figures}
"""


@dataclass(frozen=True)
class CalibrationReport:
    """What a new calibration changed.

    Attributes:
        path: the new bundle.
        document: `calibrate --json`: `before` and `after` on the validation images, and `held_out`,
            the same figures with each fifth of the images judged by a fit on the other four.
    """

    path: Path
    document: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"out": str(self.path), **self.document}


def recalibrate(
    bundle: Bundle, data: Path, out: Path, target_precision: float
) -> CalibrationReport:
    """Write another bundle; `bundle` stays as it is.

    Logits are those of fp32, which decides nothing anew on another machine.

    Raises:
        UserError: a target outside (0, 1), or `out` lies inside the bundle.
        DataError: no such data, or other classes.
        OutputExistsError: `out` is there.
    """
    if not 0 < target_precision < 1:
        raise UserError(
            f"the target precision must lie between 0 and 1, but got {target_precision:g}"
        )
    if out.absolute().resolve().is_relative_to(bundle.path.resolve()):
        raise UserError(
            f"{out} lies inside the bundle, which never changes", "Choose another --out."
        )
    require_absent(out, "the bundle", "Bundles are immutable: choose another --out.")
    part = read_split_images((bundle,), data, "validation", "calibrate")
    predictor = Predictor(bundle, "fp32", num_threads=os.cpu_count() or 1)
    logits = predictor.logits(part.images, views="single")
    fitted = fit_calibration(logits, part.labels, target_precision)
    before = _figures(logits, part.labels, bundle.contents.calibration)
    after = _figures(logits, part.labels, fitted)
    contents = _contents(bundle, part, logits, fitted, after)
    card = model_card(contents) + _card_section(bundle, part, contents, after)
    bundle_id = repack(bundle, out, contents, card)
    document = {
        **describe(predictor, part),
        "new_bundle": {"id": bundle_id, "name": contents.name},
        "target_precision": target_precision,
        "ece_bins": ECE_BINS,
        "before": before,
        "after": after,
        "held_out": _held_out(logits, part.labels, target_precision),
    }
    return CalibrationReport(out, document)


def _figures(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], settings: CalibrationConfig
) -> dict[str, Any]:
    """What a calibration does on some images; `abstain` is None where it has no rule."""
    log_p = log_softmax(logits / settings.temperature)
    probabilities = np.exp(log_p)
    correct = probabilities.argmax(axis=1) == labels
    rule = None
    if settings.threshold < NO_RULE:
        kept = kept_figures(probabilities.max(axis=1), correct, settings.threshold)
        rule = {"threshold": settings.threshold, **kept}
    return {
        "temperature": settings.temperature,
        "log_loss": -float(log_p[np.arange(len(labels)), labels].mean()),
        "ece": calibration(labels, probabilities, ECE_BINS).ece,
        "abstain": rule,
    }


def _held_out(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], target_precision: float
) -> dict[str, Any]:
    """Figures on images that the fit did not see: the fitted ones lean to the good side."""
    count = len(labels)
    fold = np.random.default_rng(_FOLD_SEED).permutation(count) % NUM_FOLDS
    probabilities = np.zeros(logits.shape)
    kept = np.zeros(count, np.bool_)
    for number in range(min(NUM_FOLDS, count)):
        inside = fold == number
        if inside.all():  # a single image has no others to fit on
            return {"folds": 0, "ece": None, "kept": None}
        settings = fit_calibration(logits[~inside], labels[~inside], target_precision)
        probabilities[inside] = np.exp(log_softmax(logits[inside] / settings.temperature))
        scores = probabilities[inside].max(axis=1)
        kept[inside] = (scores >= settings.threshold) & (settings.threshold < NO_RULE)
    correct = probabilities.argmax(axis=1) == labels
    return {
        "folds": NUM_FOLDS,
        "ece": calibration(labels, probabilities, ECE_BINS).ece,
        "kept": kept_figures(kept.astype(np.float64), correct, 0.5),
    }


def _contents(
    bundle: Bundle,
    part: SplitImages,
    logits: npt.NDArray[np.float32],
    fitted: CalibrationConfig,
    after: dict[str, Any],
) -> Contents:
    """The parent's contents, calibrated; validation figures anew if the data are its own."""
    parent = bundle.contents
    same_data = parent.lineage["data"]["fingerprint"] == part.prepared.fingerprint
    metrics = {**parent.metrics, "calibration": after}
    if same_data:
        metrics["validation"] = figures(logits, part.labels, part.class_names, fitted.temperature)
    lineage = {
        **parent.lineage,
        "parent": {"bundle_id": bundle.id, "name": parent.name},
        "calibrated_on": {
            "name": _data_name(bundle, part),
            "fingerprint": part.prepared.fingerprint,
            "images": len(part.labels),
        },
    }
    return replace(parent, calibration=fitted, metrics=metrics, lineage=lineage)


def _data_name(bundle: Bundle, part: SplitImages) -> str:
    data = bundle.contents.lineage["data"]
    same = data["fingerprint"] == part.prepared.fingerprint
    return str(data["name"]) if same else part.prepared.path.name


def _card_section(
    bundle: Bundle, part: SplitImages, contents: Contents, after: dict[str, Any]
) -> str:
    """What is new, at the end of the card."""
    same = bundle.contents.lineage["data"]["fingerprint"] == part.prepared.fingerprint
    text = f"There the calibration error is {after['ece']:.3f}."
    if not same:
        text += " The results above are the parent's on its own data."
    return _CARD.format(
        parent=bundle.id[:12],
        data_name=contents.lineage["calibrated_on"]["name"],
        fingerprint=part.prepared.fingerprint[:16],
        figures=text,
    )
