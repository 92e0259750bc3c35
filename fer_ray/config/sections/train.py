"""`train`: optimizers, schedules and the rest of a training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fer_ray.config.sections.base import Count, NonNegative, OneOf, Positive, Section


class SgdConfig(Section):
    """Stochastic gradient descent with momentum."""

    lr: Positive = 0.05
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5.0e-4
    """On weights only: batch norm and biases have none."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdConfig:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov: true needs momentum above 0")
        return self


class AdamConfig(Section):
    """Adam (Kingma and Ba 2014, arXiv 1412.6980)."""

    lr: Positive = 1.0e-3
    weight_decay: NonNegative = 0.0
    """L2, on weights only."""


class AdamWConfig(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101)."""

    lr: Positive = 1.0e-3
    weight_decay: NonNegative = 1.0e-2
    """Decoupled, on weights only."""


class OptimizerConfig(OneOf):
    """One optimizer."""

    sgd: SgdConfig | None = None
    adam: AdamConfig | None = None
    adamw: AdamWConfig | None = None


class CosineConfig(Section):
    """Linear warm-up, then a half cosine to zero, step by step."""

    warmup_epochs: Annotated[int, Field(ge=0)] = 1


class StepConfig(Section):
    """Times gamma every so many epochs."""

    step_epochs: Count = 7
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1


class ExponentialConfig(Section):
    """Times gamma every epoch."""

    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95


class PlateauConfig(Section):
    """Times factor when the objective has not gained for `patience` epochs."""

    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.75
    patience: Count = 5


class ConstantConfig(Section):
    """The learning rate as it is."""


class OneCycleConfig(Section):
    """Up to the learning rate and down to zero, linear (Smith 2018, arXiv 1803.09820)."""

    warmup_frac: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of all steps that rise."""


class ScheduleConfig(OneOf):
    """One learning-rate schedule."""

    cosine: CosineConfig | None = None
    step: StepConfig | None = None
    exponential: ExponentialConfig | None = None
    plateau: PlateauConfig | None = None
    constant: ConstantConfig | None = None
    onecycle: OneCycleConfig | None = None


class TrainConfig(Section):
    """How the network is trained."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 27
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Images a step, over all workers."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto = bf16 where the processor or GPU computes it natively."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Szegedy et al. 2015, arXiv 1512.00567."""
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    """Loss weights: inverse class frequency, or its square root."""
    logit_adjustment: NonNegative = 0.0
    """tau: adds tau * log(class frequency) to the logits in the training loss alone, which favours
    rare classes (Menon et al. 2020, arXiv 2007.07314); 0 is off, 1 aims at balanced accuracy."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = 0.998
    """Decay a step of the averaged weights that are evaluated and kept; null is off."""
    grad_clip: Positive | None = None
    """Largest global gradient norm."""
    early_stop: Count | None = None
    """Stop after so many epochs without gain."""
    optimizer: OptimizerConfig = OptimizerConfig(sgd=SgdConfig())
    schedule: ScheduleConfig = ScheduleConfig(cosine=CosineConfig())

    @model_validator(mode="after")
    def _warmup_ends(self) -> TrainConfig:
        cosine = self.schedule.cosine
        if cosine is not None and cosine.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs <= epochs must hold, but got "
                f"(warmup_epochs={cosine.warmup_epochs}, epochs={self.epochs})"
            )
        return self
