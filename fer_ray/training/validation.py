"""Validation within a training: every rank takes a part of the split, their counts are summed."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fer_ray.data.prepared import Split
from fer_ray.images.preprocess import Preprocess
from fer_ray.metrics import Tally
from fer_ray.models.inference import logits_of
from fer_ray.training.ema import Ema
from fer_ray.training.group import Group
from fer_ray.training.rows import shared_tensor


class Validation:
    """This rank's part of the validation split, on the device for the whole training.

    Args:
        split: all of it, uint8; each rank takes every size-th image.
        num_classes: of its labels.
        preprocess: its evaluation view is what the network sees.
        device: of the network.
        group: the processes that train together.
    """

    def __init__(
        self,
        split: Split,
        *,
        num_classes: int,
        preprocess: Preprocess,
        device: torch.device,
        group: Group,
    ) -> None:
        mine = slice(group.rank, None, group.size)
        part = Split(split.images[mine], split.labels[mine])
        self._images = preprocess.static(shared_tensor(part.images)).to(device)
        self._labels = part.labels.astype(np.int64)
        self._num_classes = num_classes
        self._preprocess = preprocess
        self._device = device
        self._group = group

    def __call__(self, model: nn.Module, ema: Ema | None, precision: str) -> Tally:
        """Counts over the whole split, the same on every rank.

        Args:
            model: in training or evaluation mode.
            ema: its averages are evaluated in place of the model's own weights.
            precision: `fp32` or `bf16`.
        """
        if ema is not None:
            ema.swap()
        # Batch norm's statistics are each rank's own; those of rank 0 are kept and so evaluated.
        self._group.copy_from_main(list(model.buffers()))
        try:
            logits = logits_of(model, self._preprocess, self._images, precision=precision)
        finally:
            if ema is not None:
                ema.swap()
        tally = Tally.empty(self._num_classes)
        tally.add(self._labels, logits.double().log_softmax(1).cpu().numpy())
        if self._group.size == 1:
            return tally
        confusion = self._group.sum(torch.from_numpy(tally.confusion).to(self._device))
        log_loss = torch.tensor(tally.log_loss_sum, dtype=torch.float64, device=self._device)
        return Tally(confusion.cpu().numpy(), float(self._group.sum(log_loss)))
