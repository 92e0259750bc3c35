"""One step of a training: augment a batch, forward, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fer_ray.config.schema import Config
from fer_ray.errors import FerRayError
from fer_ray.images.preprocess import Preprocess
from fer_ray.models.inference import autocast
from fer_ray.training.augment import augment
from fer_ray.training.ema import Ema
from fer_ray.training.group import Group
from fer_ray.training.loss import Loss, mix
from fer_ray.training.micro_batch import MicroBatches, is_out_of_memory
from fer_ray.training.optimizer import clip_gradients
from fer_ray.training.rows import Batch


@dataclass(frozen=True)
class Step:
    """What a step needs.

    Attributes:
        config: without holes.
        model: the network itself.
        net: the module to call; with several ranks it averages gradients.
        loss: of logits and targets.
        micro_batches: how a batch is cut where memory is short.
        precision: `fp32` or `bf16`.
        num_classes: logits.
    """

    config: Config
    model: nn.Module
    net: nn.Module
    optimizer: Optimizer
    ema: Ema | None
    preprocess: Preprocess
    loss: Loss
    micro_batches: MicroBatches
    group: Group
    precision: str
    num_classes: int

    def __call__(
        self, batch: Batch, rows_of_all: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            batch: this rank's rows.
            rows_of_all: rows of all ranks' batches.
            generator: of the augmentation, on the batch's device.

        Returns:
            the sum of this rank's rows' losses, and how many of them it got right.
        """
        x, targets = self.inputs(batch, generator)
        # The group averages gradients over ranks; this weight makes it an average over rows.
        weight = self.group.size / rows_of_all

        def part(rows: slice) -> Tensor:
            return self._forward_backward(x[rows], targets[rows], batch.labels[rows], weight)

        def start() -> None:
            self.optimizer.zero_grad(set_to_none=True)

        if self.group.size == 1:
            sums = self.micro_batches.run(len(batch), start, part)
        else:
            start()
            sums = self._whole(part, len(batch))
        if self.config.train.grad_clip is not None:
            clip_gradients(self.model, self.config.train.grad_clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        return sums[0], sums[1]

    def inputs(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented network input, float [B, C, c, c], and targets, int64 [B] or float [B, K]."""
        config = self.config
        unit = augment(batch.images, config.augment, config.data.crop, generator)
        unit, targets = mix(
            unit,
            batch.labels if batch.votes is None else batch.votes,
            self.num_classes,
            mixup_alpha=config.augment.mixup_alpha,
            cutmix_alpha=config.augment.cutmix_alpha,
            generator=generator,
        )
        x = self.preprocess.finish(unit).contiguous(memory_format=torch.channels_last)
        return x, targets

    def _forward_backward(
        self, x: Tensor, targets: Tensor, labels: Tensor, weight: float
    ) -> Tensor:
        """Add some rows' gradients; gives the sum of their losses and the number right, as one."""
        with autocast(x.device, self.precision):
            logits = self.net(x)
        loss = self.loss(logits, targets)
        (loss * (weight * len(x))).backward()  # type: ignore[no-untyped-call]
        right = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([loss.detach() * len(x), right.float()])

    def _whole(self, part: Callable[[slice], Tensor], num_rows: int) -> Tensor:
        """All rows at once: ranks that go on alone after a failure would wait for each other."""
        try:
            return part(slice(0, num_rows))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise FerRayError(
                f"out of memory with {num_rows} images at once, on {self.group.size} workers each",
                "Lower train.batch_size, or use more workers: with several workers a batch is not "
                "cut into smaller parts.",
            ) from error
