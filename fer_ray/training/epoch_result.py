"""What is known of an epoch once it has ended: a row of the curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochResult:
    """One epoch of a training, as it stands in curves and reports.

    Attributes:
        epoch: from 1.
        train_loss, train_accuracy: over the augmented training images, while training.
        val_*: on the validation split, evaluation view.
        objective: the config's metric.
        best_objective: best so far.
        best_epoch: its epoch.
        lr: of the last step.
        seconds: wall time of training and validation.
        images_per_s: training images over the time of training alone.
        micro_batch: images that went through the network at once; fewer than a worker's batch only
            where memory ran out.
        diverged: the loss or the metric left the finite numbers; the training ends here.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    val_balanced_accuracy: float
    objective: float
    best_objective: float
    best_epoch: int
    lr: float
    seconds: float
    images_per_s: float
    micro_batch: int
    diverged: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
