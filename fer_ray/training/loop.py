"""The training loop: one process, one device, no Ray.

    training = Training(config, data)
    for result in training.epochs():      # the caller may stop at any epoch
        ...
    weights = training.best_state()       # of the best epoch, averaged where EMA is on

All randomness follows from (seed, epoch), so a training resumed at an epoch's end goes on exactly
as it would have.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_ray.config.schema import Config
from fer_ray.data.prepared import Split, TrainingData
from fer_ray.errors import UserError
from fer_ray.images.preprocess import Preprocess, build_recipe
from fer_ray.metrics import Tally
from fer_ray.models.build import build_model
from fer_ray.models.inference import (
    autocast,
    in_channels_last,
    logits_of,
    resolve_device,
    resolve_precision,
)
from fer_ray.training.augment import augment
from fer_ray.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from fer_ray.training.ema import Ema
from fer_ray.training.loss import class_weights, cross_entropy, mix
from fer_ray.training.optimizer import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    set_learning_rate,
)
from fer_ray.training.schedule import Schedule

_STEPS_BETWEEN_CHECKS = 50
"""Steps after which the loss is looked at; each look waits for the device."""


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
    diverged: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Training:
    """One network in training.

    Args:
        config: without holes.
        data: training and validation split, uint8.
        state: pretrained weights of a ResNet's body.
    """

    def __init__(
        self, config: Config, data: TrainingData, state: dict[str, Tensor] | None = None
    ) -> None:
        self.config = config
        self.class_names = data.class_names
        self.device = resolve_device(config.train.device)
        self.precision = resolve_precision(config.train.precision, self.device)
        self.recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
        self.preprocess = Preprocess(self.recipe)
        torch.manual_seed(_seed(config.train.seed, 0, "start"))
        model = build_model(
            config.model,
            num_classes=len(data.class_names),
            in_channels=config.data.channels,
            input_px=config.data.crop,
            state=state,
        )
        self.model = in_channels_last(model.to(self.device))
        self.optimizer = build_optimizer(self.model, config.train.optimizer)
        self.schedule = Schedule(config.train.schedule, config.train.epochs)
        self.ema = Ema(self.model, config.train.ema) if config.train.ema is not None else None
        self.images, self.labels = self._on_device(data.train)
        self.val_images, self.val_labels = self._on_device(data.validation)
        self._val_labels_np = data.validation.labels.astype(np.int64)
        self.class_weights = class_weights(
            self.labels, len(data.class_names), config.train.class_weights
        )
        self.epoch = 0
        self.curve: list[dict[str, Any]] = []
        self._sign = 1.0 if config.objective.goal == "maximize" else -1.0
        self.best_gain = -math.inf
        self.best_epoch = 0
        self._best: dict[str, Tensor] = self._weights()

    def _on_device(self, split: Split) -> tuple[Tensor, Tensor]:
        images = self.preprocess.static(torch.from_numpy(split.images))
        labels = torch.from_numpy(split.labels.astype(np.int64))
        return images.to(self.device), labels.to(self.device)

    def epochs(self) -> Iterator[EpochResult]:
        """Train epoch by epoch until the config's last, an early stop, or divergence."""
        while self.epoch < self.config.train.epochs:
            result = self._one_epoch(self.epoch + 1)
            self.epoch += 1
            self.curve.append(result.as_dict())
            yield result
            patience = self.config.train.early_stop
            if result.diverged or (patience and self.epoch - self.best_epoch >= patience):
                return

    def _one_epoch(self, epoch: int) -> EpochResult:
        started = time.perf_counter()
        loss, accuracy, lr = self._train(epoch)
        trained_s = time.perf_counter() - started
        tally = self._validate() if math.isfinite(loss) else None
        objective = tally.value(self.config.objective.metric) if tally else math.nan
        diverged = not math.isfinite(objective)
        gain = self._sign * objective
        if not diverged:
            self.schedule.observe(gain)
            if gain > self.best_gain:
                self.best_gain, self.best_epoch = gain, epoch
                self._best = self._weights()
        tally = tally or Tally.empty(len(self.class_names))
        return EpochResult(
            epoch=epoch,
            train_loss=loss if math.isfinite(loss) else -1.0,
            train_accuracy=accuracy,
            val_loss=tally.log_loss if not diverged else -1.0,
            val_accuracy=tally.accuracy,
            val_macro_f1=tally.macro_f1,
            val_balanced_accuracy=tally.balanced_accuracy,
            objective=objective if not diverged else -1.0,
            best_objective=self.best_objective,
            best_epoch=self.best_epoch,
            lr=lr,
            seconds=time.perf_counter() - started,
            images_per_s=len(self.images) / trained_s,
            diverged=diverged,
        )

    @property
    def best_objective(self) -> float:
        """Best value of the objective so far; -1 before any finite epoch."""
        return self._sign * self.best_gain if math.isfinite(self.best_gain) else -1.0

    def _train(self, epoch: int) -> tuple[float, float, float]:
        """One pass over the training split.

        Returns:
            mean loss, accuracy on the augmented images, learning rate of the last step.
        """
        config = self.config.train
        torch.manual_seed(_seed(config.seed, epoch, "dropout"))
        generator = torch.Generator(self.device).manual_seed(_seed(config.seed, epoch, "augment"))
        order_generator = torch.Generator().manual_seed(_seed(config.seed, epoch, "order"))
        order = torch.randperm(len(self.images), generator=order_generator).to(self.device)
        # Batches differ by at most one image, so no batch is too small for batch norm.
        batches = order.tensor_split(max(1, math.ceil(len(order) / config.batch_size)))
        base_lr = learning_rate(config.optimizer)
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        lr = base_lr
        self.model.train()
        for step, batch in enumerate(batches):
            # A factor of exactly 0 would waste the first step of a warm-up.
            lr = base_lr * self.schedule.factor(epoch - 1 + (step + 0.5) / len(batches))
            set_learning_rate(self.optimizer, lr)
            loss, hits = self._step(batch, generator)
            loss_sum += loss * len(batch)
            correct += hits
            if step % _STEPS_BETWEEN_CHECKS == 0 and not math.isfinite(float(loss_sum)):
                break
        count = len(self.images)
        return float(loss_sum) / count, float(correct) / count, lr

    def _step(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        config = self.config
        labels = self.labels[batch]
        unit = augment(self.images[batch], config.augment, config.data.crop, generator)
        unit, targets = mix(
            unit,
            labels,
            len(self.class_names),
            mixup_alpha=config.augment.mixup_alpha,
            cutmix_alpha=config.augment.cutmix_alpha,
            generator=generator,
        )
        x = self.preprocess.finish(unit).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            logits = self.model(x)
        loss = cross_entropy(logits, targets, config.train.label_smoothing, self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.train.grad_clip is not None:
            clip_gradients(self.model, config.train.grad_clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    def _validate(self) -> Tally:
        if self.ema is not None:
            self.ema.swap()
        try:
            logits = logits_of(
                self.model, self.preprocess, self.val_images, precision=self.precision
            )
        finally:
            if self.ema is not None:
                self.ema.swap()
        tally = Tally.empty(len(self.class_names))
        tally.add(self._val_labels_np, logits.double().log_softmax(1).cpu().numpy())
        return tally

    def _weights(self) -> dict[str, Tensor]:
        """A copy of what is evaluated: the averages where EMA is on."""
        state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.ema is not None:
            state.update({name: value.clone() for name, value in self.ema.averages.items()})
        return state

    def best_state(self) -> dict[str, Tensor]:
        """State dict of the best epoch, on the CPU."""
        return {name: value.cpu().contiguous() for name, value in self._best.items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `resume` goes on exactly."""
        averages = self.ema.averages if self.ema is not None else {}
        groups = {
            "model": self.model.state_dict(),
            "ema": averages,
            "best": self._best,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        tensors = {
            f"{group}/{name}": value
            for group, named in groups.items()
            for name, value in named.items()
        }
        document = {
            "config": self.config.fingerprint(),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_gain": self.best_gain if math.isfinite(self.best_gain) else None,
            "ema_steps": self.ema.num_steps if self.ema is not None else 0,
            "schedule": self.schedule.state(),
            "curve": self.curve,
        }
        save_checkpoint(path, tensors, document)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same config.

        Raises:
            UserError: the checkpoint cannot be read or is of another config.
        """
        tensors, document = load_checkpoint(path)
        if document["config"] != self.config.fingerprint():
            raise UserError(f"{path} is a checkpoint of another config")
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "best": {}, "optimizer": {}}
        for key, value in tensors.items():
            group, name = key.split("/", 1)
            groups[group][name] = value
        self.model.load_state_dict(groups["model"])
        load_optimizer(self.optimizer, groups["optimizer"])
        if self.ema is not None:
            for name, value in groups["ema"].items():
                self.ema.averages[name].copy_(value)
            self.ema.num_steps = int(document["ema_steps"])
        self.schedule.load(document["schedule"])
        self._best = {name: value.to(self.device) for name, value in groups["best"].items()}
        self.epoch = int(document["epoch"])
        self.best_epoch = int(document["best_epoch"])
        best = document["best_gain"]
        self.best_gain = -math.inf if best is None else float(best)
        self.curve = list(document["curve"])


def _seed(seed: int, epoch: int, what: str) -> int:
    """An independent 63-bit seed for each use in each epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
