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
from fer_ray.images.preprocess import Preprocess
from fer_ray.metrics import wilson_interval
from fer_ray.models.inference import logits_of

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Gap:
    """What can be said of a lead in accuracy.

    Attributes:
        method: how it was tested.
        gain: of the winner over trial 0, share of images.
        low, high: 95 % interval of the gain.
        p: of the test that both are equally good; None where only the intervals were compared.
        smallest: the smallest gain whose interval would have left zero out, at this disagreement.
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
        preprocess = Preprocess(bundle.contents.recipe)
        images = preprocess.static(_tensor(validation.validation.images))
        logits = logits_of(bundle.model, preprocess, images, precision="fp32").numpy()
        correct.append(logits.argmax(axis=1) == validation.validation.labels)
    return gap_of(correct[0], correct[1])


def _tensor(images: npt.NDArray[np.uint8]):  # type: ignore[no-untyped-def]
    import torch

    return torch.tensor(images)


def gap_of(ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> Gap:
    """McNemar's exact test and the interval of the difference of paired proportions.

    Args:
        ours, theirs: bool [N], which images each got right; the gain is ours minus theirs.
    """
    count = len(ours)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    gain = (only_ours - only_theirs) / count
    spread = math.sqrt(max(only_ours + only_theirs - count * gain * gain, 0.0)) / count
    return Gap(
        method=(
            f"McNemar's exact test on the same {count:,} validation images: "
            f"{only_ours:,} right only with the winner, {only_theirs:,} only with trial 0"
        ),
        gain=gain,
        low=gain - _Z95 * spread,
        high=gain + _Z95 * spread,
        p=mcnemar_p(only_ours, only_theirs),
        smallest=_Z95 * math.sqrt(only_ours + only_theirs) / count,
    )


def mcnemar_p(only_ours: int, only_theirs: int) -> float:
    """Two-sided exact p-value: a fair coin for each image that only one got right."""
    total = only_ours + only_theirs
    few = min(only_ours, only_theirs)
    tail = sum(
        math.exp(
            math.lgamma(total + 1)
            - math.lgamma(k + 1)
            - math.lgamma(total - k + 1)
            - total * math.log(2)
        )
        for k in range(few + 1)
    )
    return min(1.0, 2 * tail)


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
