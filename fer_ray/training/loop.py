"""The training loop: one process a device, one or several of them, no Ray.

    training = Training(config, data)
    for result in training.epochs():      # the caller may stop at any epoch
        ...
    weights = training.best_state()       # of the best epoch, averaged where EMA is on

All randomness follows from (seed, epoch, rank), so a training resumed at an epoch's end goes on
exactly as it would have.

Several processes (`Group`) each hold a shard of the training images. Every row counts exactly once
an epoch: all ranks make the same number of steps, their batches differ by at most one row, and each
row's gradient weighs the same, so that a step of N ranks is the step of one process on their N
batches together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData
from fer_ray.errors import UserError
from fer_ray.images.preprocess import Preprocess, build_recipe
from fer_ray.metrics import Tally
from fer_ray.models.build import build_model
from fer_ray.models.inference import (
    in_channels_last,
    resolve_device,
    resolve_precision,
)
from fer_ray.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from fer_ray.training.ema import Ema
from fer_ray.training.epoch_result import EpochResult
from fer_ray.training.group import Group
from fer_ray.training.loss import Loss, class_weights, log_prior
from fer_ray.training.micro_batch import MicroBatches
from fer_ray.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from fer_ray.training.rows import rows_of
from fer_ray.training.schedule import Schedule
from fer_ray.training.seeds import seed_of
from fer_ray.training.step import Step
from fer_ray.training.validation import Validation

_STEPS_BETWEEN_CHECKS = 50
"""Steps after which the loss is looked at; each look waits for the device."""


class Training:
    """One network in training.

    Args:
        config: without holes.
        data: training split (this rank's shard of it) and validation split, uint8.
        state: pretrained weights of a ResNet's body.
        group: the processes that train together.
        say: told when memory runs out and batches are cut into parts.

    Raises:
        UserError: the batch is smaller than the group, or the shards are too uneven.
    """

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        state: dict[str, Tensor] | None = None,
        group: Group | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config = config
        self.group = group or Group()
        self.class_names = data.class_names
        self.device = resolve_device(config.train.device)
        self.precision = resolve_precision(config.train.precision, self.device)
        self.recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
        self.preprocess = Preprocess(self.recipe)
        torch.manual_seed(seed_of(config.train.seed, 0, "start"))
        model = build_model(
            config.model,
            num_classes=len(data.class_names),
            in_channels=config.data.channels,
            input_px=config.data.crop,
            state=state,
        )
        self.model = in_channels_last(model.to(self.device))
        resnet = config.model.resnet
        self.optimizer = build_optimizer(
            self.model, config.train.optimizer, resnet.body_lr_factor if resnet else 1.0
        )
        self.schedule = Schedule(config.train.schedule, config.train.epochs)
        self.ema = Ema(self.model, config.train.ema) if config.train.ema is not None else None
        self.rows = rows_of(data.train, self.preprocess, self.device)
        self._validate = Validation(
            data.validation,
            num_classes=len(data.class_names),
            preprocess=self.preprocess,
            device=self.device,
            group=self.group,
        )
        label_counts = self.group.sum(self.rows.label_counts(len(data.class_names)))
        self._shard_sizes = self.group.gather_ints(len(self.rows))
        self.num_steps = self._steps_an_epoch()
        self.micro_batches = MicroBatches(say)
        self._step = Step(
            config=config,
            model=self.model,
            net=self.group.wrap(self.model),
            optimizer=self.optimizer,
            ema=self.ema,
            preprocess=self.preprocess,
            loss=Loss(
                config.train.label_smoothing,
                class_weights(label_counts, config.train.class_weights),
                log_prior(label_counts, config.train.logit_adjustment),
            ),
            micro_batches=self.micro_batches,
            group=self.group,
            precision=self.precision,
            num_classes=len(data.class_names),
        )
        self.epoch = 0
        self.curve: list[dict[str, Any]] = []
        self._sign = 1.0 if config.objective.goal == "maximize" else -1.0
        self.best_gain = -math.inf
        self.best_epoch = 0
        self._best: dict[str, Tensor] = self._weights()

    def _steps_an_epoch(self) -> int:
        """Steps of every rank; each shard must have a row for each."""
        batch_size = self.config.train.batch_size
        if batch_size < self.group.size:
            raise UserError(
                f"batch_size >= workers must hold, but got (batch_size={batch_size}, "
                f"workers={self.group.size})"
            )
        steps = max(1, math.ceil(sum(self._shard_sizes) / batch_size))
        if min(self._shard_sizes) < steps:
            raise UserError(
                f"shards of {self._shard_sizes} rows are too small or too uneven for {steps} "
                "steps an epoch",
                "Use fewer workers or a larger batch_size.",
            )
        return steps

    def epochs(self) -> Iterator[EpochResult]:
        """Train epoch by epoch until the config's last, an early stop, or divergence."""
        while not self.ended:
            result = self._one_epoch(self.epoch + 1)
            self.epoch += 1
            self.curve.append(result.as_dict())
            yield result

    @property
    def ended(self) -> bool:
        """Whether the training is over: the last epoch, an early stop, or divergence."""
        patience = self.config.train.early_stop
        return bool(
            self.epoch >= self.config.train.epochs
            or (self.curve and self.curve[-1]["diverged"])
            or (patience and self.epoch - self.best_epoch >= patience)
        )

    def _one_epoch(self, epoch: int) -> EpochResult:
        started = time.perf_counter()
        loss, accuracy, lr = self._train(epoch)
        trained_s = time.perf_counter() - started
        tally = None
        if math.isfinite(loss):
            tally = self._validate(self.model, self.ema, self.precision)
        # Networks of NaN still have an accuracy, that of the first class; their loss is NaN.
        diverged = tally is None or not math.isfinite(tally.log_loss)
        objective = tally.value(self.config.objective.metric) if tally else math.nan
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
            images_per_s=sum(self._shard_sizes) / trained_s,
            micro_batch=self.micro_batch,
            diverged=diverged,
        )

    @property
    def micro_batch(self) -> int:
        """Images that go through the network at once on this rank."""
        batch = math.ceil(len(self.rows) / self.num_steps)
        return self.micro_batches.largest(batch)

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
        rank = self.group.rank
        torch.manual_seed(seed_of(config.seed, epoch, "dropout", rank))
        generator = torch.Generator(self.device)
        generator.manual_seed(seed_of(config.seed, epoch, "augment", rank))
        # Batches differ by at most one image, so no batch is too small for batch norm.
        batches = self.rows.batches(self.num_steps, seed_of(config.seed, epoch, "order", rank))
        base_lr = learning_rate(config.optimizer)
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        lr = base_lr
        self.model.train()
        for step, batch in enumerate(batches):
            # A factor of exactly 0 would waste the first step of a warm-up.
            lr = base_lr * self.schedule.factor(epoch - 1 + (step + 0.5) / self.num_steps)
            set_learning_rate(self.optimizer, lr)
            loss, hits = self._step(batch, self._rows_of_step(step), generator)
            loss_sum += loss
            correct += hits
            if step % _STEPS_BETWEEN_CHECKS == 0 and not math.isfinite(
                float(self.group.sum(loss_sum))
            ):
                break
        count = sum(self._shard_sizes)
        loss_sum, correct = self.group.sum(loss_sum), self.group.sum(correct)
        return float(loss_sum) / count, float(correct) / count, lr

    def _rows_of_step(self, step: int) -> int:
        """Rows of all ranks' batches in a step, as `tensor_split` deals them out."""
        return sum(
            size // self.num_steps + (step < size % self.num_steps) for size in self._shard_sizes
        )

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
            "max_rows": self.micro_batches.max_rows,
            "curve": self.curve,
        }
        save_checkpoint(path, tensors, document)

    @staticmethod
    def best_of(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Weights of the best epoch, and the curve, of a training that another process ran.

        Raises:
            UserError: the checkpoint cannot be read.
        """
        tensors, document = load_checkpoint(path)
        best = {
            name.removeprefix("best/"): value
            for name, value in tensors.items()
            if name.startswith("best/")
        }
        return best, list(document["curve"])

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
        self.micro_batches.max_rows = document["max_rows"]
        self._best = {name: value.to(self.device) for name, value in groups["best"].items()}
        self.epoch = int(document["epoch"])
        self.best_epoch = int(document["best_epoch"])
        best = document["best_gain"]
        self.best_gain = -math.inf if best is None else float(best)
        self.curve = list(document["curve"])
