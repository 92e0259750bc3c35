"""A bundle on a split of a prepared data set; every opening of the test split is written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DataError
from fer_ray.evaluation.evaluate import ECE_BINS, figures, kept_figures, log_softmax
from fer_ray.evaluation.split_images import SplitImages, read_split_images
from fer_ray.images.views import check_views
from fer_ray.metrics import RiskCoverage, Tally, calibration, risk_coverage, wilson_interval

FloatArray = npt.NDArray[np.float64]

MAX_GROUPS = 1000


@dataclass(frozen=True)
class Evaluation:
    """What a bundle is worth on a split.

    Attributes:
        document: every figure, as `evaluate --json` prints it.
        split: the images.
        probabilities: float64 [N, C], of a single view.
        risk: errors among the kept answers, by coverage.
    """

    document: dict[str, Any]
    split: SplitImages
    probabilities: FloatArray
    risk: RiskCoverage

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return self.document


def evaluate_split(
    predictor: Predictor,
    data: Path,
    split: str,
    *,
    views: str,
    group_column: str | None,
) -> Evaluation:
    """Every figure of a bundle on a split; see `fer_ray.api.evaluate`.

    Raises:
        UserError: no such split's name, or views that such images do not have.
        DataError: no such data, split or column, too many groups, or the data's classes are not the
            bundle's.
    """
    bundle = predictor.bundle
    require_views(predictor, views)
    part = read_split_images((bundle,), data, split, "evaluate", group_column)
    settings = bundle.contents.calibration
    logits = predictor.logits(part.images, views="single")
    probabilities = np.exp(log_softmax(logits / settings.temperature))
    correct = probabilities.argmax(axis=1) == part.labels
    scores = probabilities.max(axis=1)
    risk = risk_coverage(scores, correct)
    document = {
        **describe(predictor, part),
        "views": "single",
        **_view_figures(logits, part, settings.temperature),
        "tta": None,
        "abstention": {
            "threshold": settings.threshold,
            "target_precision": settings.target_precision,
            **kept_figures(scores, correct, settings.threshold),
        },
        "risk_coverage_area": risk.area,
        "reliability": _reliability(part, probabilities),
        "groups": None,
    }
    if views != "single":
        averaged = predictor.logits(part.images, views=views)
        document["tta"] = {"views": views, **_view_figures(averaged, part, settings.temperature)}
    if part.groups is not None:
        document["groups"] = {
            "column": group_column,
            "rows": _group_rows(part, part.groups, probabilities),
        }
    return Evaluation(document, part, probabilities, risk)


def require_views(predictor: Predictor, views: str) -> None:
    """Refuse, before anything is read, views that the bundle's images do not have."""
    recipe = predictor.bundle.contents.recipe
    check_views(views, recipe.image_size_px, recipe.crop_px)


def describe(predictor: Predictor, part: SplitImages) -> dict[str, Any]:
    """Which bundle stands before which images."""
    bundle = predictor.bundle
    return {
        "bundle": {"id": bundle.id, "name": bundle.contents.name},
        "inference": predictor.inference,
        "data": {
            "path": str(part.prepared.path),
            "fingerprint": part.prepared.fingerprint,
            "is_training_data": bundle.contents.lineage["data"]["fingerprint"]
            == part.prepared.fingerprint,
        },
        "split": part.split,
        "test_openings": part.openings,
    }


def _view_figures(
    logits: npt.NDArray[np.float32], part: SplitImages, temperature: float
) -> dict[str, Any]:
    """`figures`, and the accuracy on the images that nothing saw before."""
    correct = logits.argmax(axis=1) == part.labels
    clean = part.clean
    number, right = int(clean.sum()), int(correct[clean].sum())
    return {
        **figures(logits, part.labels, part.class_names, temperature),
        "clean": {
            "count": number,
            "correct": right,
            "accuracy": right / number if number else None,
            "accuracy_interval": list(wilson_interval(right, number)),
            "num_in_train": int(part.in_train.sum()),
            "num_in_validation": int(part.in_validation.sum()),
        },
    }


def _reliability(part: SplitImages, probabilities: FloatArray) -> list[dict[str, Any]]:
    """The bins behind the calibration error, empty ones included."""
    found = calibration(part.labels, probabilities, ECE_BINS)
    rows = []
    for index, count in enumerate(found.bin_count.tolist()):
        accuracy = float(found.bin_accuracy[index])
        rows.append(
            {
                "low": index / ECE_BINS,
                "high": (index + 1) / ECE_BINS,
                "count": count,
                "confidence": float(found.bin_confidence[index]),
                "accuracy": accuracy,
                "accuracy_interval": list(wilson_interval(round(accuracy * count), count)),
            }
        )
    return rows


def _group_rows(
    part: SplitImages, groups: tuple[str, ...], probabilities: FloatArray
) -> list[dict[str, Any]]:
    """Figures a group, the largest first."""
    names, index = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    if len(names) > MAX_GROUPS:
        raise DataError(
            f"the group column has {len(names):,} different values in {len(groups):,} images; "
            f"at most {MAX_GROUPS:,} groups are told apart",
            "Choose a column with fewer, such as one made by `fer-ray data import --group-by`.",
        )
    rows = []
    log_p = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    for number, name in enumerate(names):
        inside = index == number
        tally = Tally.empty(len(part.class_names))
        tally.add(part.labels[inside], log_p[inside])
        right = int(np.trace(tally.confusion))
        rows.append(
            {
                "group": str(name),
                "count": tally.count,
                "correct": right,
                "accuracy": tally.accuracy,
                "accuracy_interval": list(wilson_interval(right, tally.count)),
                "majority_accuracy": tally.majority_accuracy,
                "balanced_accuracy": tally.balanced_accuracy,
            }
        )
    return sorted(rows, key=lambda row: (-row["count"], row["group"]))
