"""Is the winner's lead over trial 0 real: both bundles on the same validation images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.load import load_bundle
from fer_ray.config.schema import Config
from fer_ray.data.loading import load_validation_data
from fer_ray.errors import FerRayError, UserError
from fer_ray.evaluation.packing import validation_logits
from fer_ray.evaluation.paired import difference_interval, mcnemar, smallest_difference
from fer_ray.metrics import wilson_interval


@dataclass(frozen=True)
class Gap:
    """What can be said of a lead in accuracy.

    Attributes:
        method: how it was tested.
        gain: of the winner over trial 0, share of images.
        low, high: 95 % interval of the gain.
        p: of the test that both are equally good; None where only the intervals were compared.
        smallest: the smallest gain that would have shown, at this disagreement.
    """

    method: str
    gain: float
    low: float
    high: float
    p: float | None
    smallest: float

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def paired_gap(winner: Path, first: Path, data: Config) -> Gap:
    """Both bundles on the validation split that the search chose on.

    Args:
        winner, first: bundles.
        data: a config whose `data` section names the split and its classes.

    Raises:
        UserError: a bundle or the data cannot be read, or they do not belong together.
        FerRayError: likewise.
    """
    bundles = [load_bundle(path) for path in (winner, first)]
    validation = load_validation_data(data.data)
    for bundle in bundles:
        fingerprint = bundle.contents.lineage.get("data", {}).get("fingerprint")
        if fingerprint != validation.fingerprint:
            raise UserError(f"{bundle.path} was trained on other data than {data.data.source}")
    correct = []
    for bundle in bundles:
        logits = validation_logits(bundle.model, bundle.contents.recipe, validation)
        correct.append(logits.argmax(axis=1) == validation.validation.labels)
    return gap_of(correct[0], correct[1])


def gap_of(ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> Gap:
    """McNemar's test and the interval of the paired difference, as `fer-ray compare` has them.

    Args:
        ours, theirs: bool [N], which images each got right; the gain is ours minus theirs.
    """
    count = len(ours)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    test = mcnemar(only_ours, only_theirs)
    low, high = difference_interval(only_ours, only_theirs, count)
    return Gap(
        method=(
            f"McNemar's test ({test.method}) on the same {count:,} validation images: "
            f"{only_ours:,} right only with the winner, {only_theirs:,} only with trial 0"
        ),
        gain=(only_ours - only_theirs) / count,
        low=low,
        high=high,
        p=test.p_value,
        smallest=smallest_difference(only_ours + only_theirs, count),
    )


def interval_gap(correct: int, first_correct: int, count: int) -> Gap:
    """From the two accuracies alone, as if measured on different images: wider than the truth."""
    ours, theirs = wilson_interval(correct, count), wilson_interval(first_correct, count)
    a, b = correct / count, first_correct / count
    # Newcombe 1998, method 10.
    below = math.hypot(a - ours[0], theirs[1] - b)
    above = math.hypot(ours[1] - a, b - theirs[0])
    return Gap(
        method=f"Newcombe's interval from both accuracies, {count:,} validation images, unpaired",
        gain=a - b,
        low=a - b - below,
        high=a - b + above,
        p=None,
        smallest=below,
    )


def explain(error: FerRayError) -> str:
    """Why the paired test was not made, one line."""
    return error.message.splitlines()[0][:300]
