"""The one typed config: every option, its type, its rule and its only default.

A search space is this config with holes (`fer_ray.config.space`). Bounds stand here; rules that
span several leaves stand in the validators. Nothing else in fer-ray repeats a default.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Units = Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(strict=False)]


class Section(BaseModel):
    """A frozen part of the tree: unknown keys are errors, numbers are not made from strings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class OneOf(Section):
    """A section with exactly one of its branches present."""

    @model_validator(mode="after")
    def _one_branch(self) -> OneOf:
        present = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(present) != 1:
            known = ", ".join(type(self).model_fields)
            got = ", ".join(present) or "none"
            raise ValueError(f"exactly one of {known} must be given, but got {got}")
        return self

    @property
    def branch(self) -> str:
        """Name of the branch that is present."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


class DataConfig(Section):
    """Which images, and how they become network input."""

    source: str | None = None
    """A prepared data set's directory, or `sample` for the built-in synthetic faces."""
    image_size: Annotated[int, Field(ge=16, le=256)] = 48
    """Pixels after the resize; a stored size that differs is resized on the device."""
    crop: Annotated[int, Field(ge=16, le=256)] = 44
    """Pixels: random in training, centre in evaluation; equal to image_size switches it off."""
    channels: Literal[1, 3] = 1
    """3 repeats the grey channel, as networks trained on ImageNet want."""
    equalize: Literal["none", "histogram", "clahe"] = "none"
    """Histogram equalisation of each image, in training and evaluation alike."""
    normalize: Literal["dataset", "imagenet", "unit"] = "dataset"
    """Mean and deviation of the training images, ImageNet's, or plain 0..1."""
    classes: str | dict[str, str | None] = "fer7"
    """fer7, fer4, valence, or a map such as {disgust: angry, fear: null}; null drops."""
    labels: Literal["hard", "ferplus"] = "hard"
    """ferplus: the annotators' votes as soft targets."""
    cache: Literal["auto", "memory", "stream"] = "auto"
    """Keep a worker's shard in memory, or stream it."""

    @model_validator(mode="after")
    def _crop_fits(self) -> DataConfig:
        if self.crop > self.image_size:
            raise ValueError(
                f"crop <= image_size must hold, but got (crop={self.crop}, "
                f"image_size={self.image_size})"
            )
        return self


class CnnConfig(Section):
    """A stack of convolution blocks, pooling, and a dense head."""

    channels: Units | None = None
    """Channels of each block, e.g. [16, 64, 128, 256]; else they follow from depth and width."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """Blocks; each halves the image but the last."""
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """Channels of the first block; they double from block to block."""
    convs_per_block: Annotated[int, Field(ge=1, le=8)] = 2
    """3x3 convolutions in a block."""
    batchnorm: Literal["all", "none"] | Units = "all"
    """Blocks with batch normalisation: all, none, or their numbers from 1."""
    batchnorm_after: Literal["conv", "block"] = "conv"
    """After each convolution of those blocks, or once, after the last of a block."""
    block_dropout: Dropout = 0.0
    """Probability of dropping a channel after each block."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution."""
    residual: bool = False
    """A shortcut around each block's convolutions (He et al. 2015, arXiv 1512.03385)."""
    pool: Literal["avg", "flatten"] = "avg"
    """Global average, or all positions flattened."""
    head: Units = ()
    """Hidden units of the dense head."""
    head_batchnorm: bool = False
    """Batch normalisation in the dense head."""
    head_dropout: Dropout = 0.3
    """Before each dense layer of the head."""

    @model_validator(mode="after")
    def _rules(self) -> CnnConfig:
        blocks = len(self.channels) if self.channels is not None else self.depth
        if self.channels is not None and not 1 <= blocks <= 8:
            raise ValueError(f"channels must name 1 to 8 blocks, but got {blocks}")
        if not isinstance(self.batchnorm, str):
            outside = [number for number in self.batchnorm if number > blocks]
            if outside:
                raise ValueError(
                    f"batchnorm names block {outside[0]}, but there are {blocks} blocks"
                )
        if self.head_batchnorm and not self.head:
            raise ValueError("head_batchnorm needs hidden units in head, but head is []")
        return self


ResNetPart = Annotated[str, Field(pattern=r"^(head|stem|layer[1-4](\.[0-9]+)?)$")]
RESNET_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}
"""Residual blocks in layer1 to layer4 (He et al. 2015, table 1)."""


class ResNetConfig(Section):
    """torchvision's ResNets (He et al. 2015) with a new head and partly frozen bodies."""

    arch: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    """Which network."""
    weights: str = "imagenet"
    """imagenet, none, a .safetensors or .pth file, or a fer-ray bundle or run."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1, for small images."""
    unfreeze: Annotated[int, Field(ge=0, le=5)] = 5
    """0 = head only, 1 = + layer4, 2 = + layer3, 3 = + layer2, 4 = + layer1, 5 = + stem."""
    unfreeze_from: ResNetPart | None = None
    """Finer than unfreeze, and instead of it: train from this block on, e.g. layer3.2."""
    unfreeze_batchnorm: bool = True
    """Train the affine terms and move the statistics of frozen stages' batch norm."""
    body_lr_factor: Positive = 1.0
    """Learning rate of the body's trained parts, relative to the head's."""
    head: Units = ()
    """Hidden units of the dense head."""
    head_dropout: Dropout = 0.3
    """Before each dense layer of the head."""

    @model_validator(mode="after")
    def _frozen_random(self) -> ResNetConfig:
        first = self.unfreeze_from or ("stem" if self.unfreeze == 5 else None)
        if self.weights == "none" and first != "stem":
            raise ValueError(
                "weights: none with unfreeze below 5 trains behind a frozen random network; "
                "set unfreeze: 5 or give weights"
            )
        return self

    @model_validator(mode="after")
    def _block_is_there(self) -> ResNetConfig:
        stage, _, block = (self.unfreeze_from or "").partition(".")
        if block and int(block) >= RESNET_BLOCKS[self.arch][int(stage[-1]) - 1]:
            blocks = RESNET_BLOCKS[self.arch][int(stage[-1]) - 1]
            raise ValueError(
                f"unfreeze_from: {self.arch} has no {self.unfreeze_from}; its {stage} has blocks "
                f"{stage}.0 to {stage}.{blocks - 1}"
            )
        return self


class ModelConfig(OneOf):
    """One network family."""

    cnn: CnnConfig | None = None
    resnet: ResNetConfig | None = None


class AugmentConfig(Section):
    """Random changes of training images, per sample, on the device. Evaluation has none."""

    flip_p: Fraction = 0.5
    """Probability of a mirror image."""
    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 10.0
    """Uniform in +- this."""
    zoom_frac: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Scale uniform in 1 +- this."""
    shift_frac: Fraction = 0.05
    """Of the image's side, uniform in +- this, each axis."""
    brightness_frac: Fraction = 0.2
    """Factor uniform in 1 +- this."""
    contrast_frac: Fraction = 0.2
    """Factor around the image's mean, uniform in 1 +- this."""
    erase_p: Fraction = 0.25
    """Probability of a random rectangle of noise (Zhong et al. 2017, arXiv 1708.04896)."""
    erase_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Largest share of the image that is erased."""
    mixup_alpha: NonNegative = 0.0
    """Beta parameter of mixup (Zhang et al. 2017, arXiv 1710.09412); 0 is off."""
    cutmix_alpha: NonNegative = 0.0
    """Beta parameter of CutMix (Yun et al. 2019, arXiv 1905.04899); 0 is off."""


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


class LimitsConfig(Section):
    """A trial above these is not trained; the sampler is told that it is infeasible."""

    params: Count | None = None
    """Trainable and frozen parameters."""
    macs: Count | None = None
    """Multiply-adds of one image's forward pass."""


class ObjectiveConfig(Section):
    """What the search looks for, on the validation split, best epoch."""

    metric: Literal["val/accuracy", "val/macro_f1", "val/balanced_accuracy", "val/log_loss"] = (
        "val/accuracy"
    )
    goal: Literal["maximize", "minimize"] = "maximize"

    @model_validator(mode="after")
    def _goal_fits(self) -> ObjectiveConfig:
        right = "minimize" if self.metric == "val/log_loss" else "maximize"
        if self.goal != right:
            raise ValueError(f"{self.metric} wants goal: {right}, but got {self.goal}")
        return self


class SearchConfig(Section):
    """What is tried."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """TPE: Bergstra et al. 2011; multivariate with groups as in Optuna."""
    trials: Annotated[int, Field(ge=1, le=100_000)] = 40
    repeat: Count = 1
    """The same configuration on this many seeds."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    start_from: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] | str = ()
    """Points to try first, each a map of addresses to values; or an earlier run."""


class AshaConfig(Section):
    """Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934)."""

    grace_epochs: Count = 3
    """No trial is stopped before; also the first rung."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on at each rung; rungs are grace times its powers."""


class SchedulerConfig(Section):
    """Who goes on."""

    asha: AshaConfig = AshaConfig()


class ConfirmConfig(Section):
    """Train the best again on fresh seeds, beside trial 0."""

    top: Count = 3
    seeds: Count = 3


class StopConfig(Section):
    """When the search ends before its trials are used up."""

    time_budget: str | None = None
    """Such as 90s, 40m, 4h or 1h30m: no trial starts after, running ones are ended in order."""
    target: float | None = None
    """End once the objective reaches this."""

    @model_validator(mode="after")
    def _duration_reads(self) -> StopConfig:
        if self.time_budget is not None:
            parse_duration_s(self.time_budget)
        return self


class PerTrialConfig(Section):
    """What one trial takes."""

    cpu: Annotated[float, Field(gt=0.0)] | Literal["auto"] = "auto"
    gpu: NonNegative | Literal["auto"] = "auto"
    """auto = 1 where the cluster has GPUs, else 0; fractions share a card."""
    workers: Count = 1


class ResourcesConfig(Section):
    """What the search takes."""

    per_trial: PerTrialConfig = PerTrialConfig()
    max_concurrent: Count | Literal["auto"] = "auto"


class KeepConfig(Section):
    """What stays on disk."""

    top: Count = 5
    """Bundles of the best so many trials; checkpoints of the others go when they end."""


class Config(Section):
    """A whole file. `train` reads name, data, model, augment, train and objective."""

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9._-]+$")]
    data: DataConfig = DataConfig()
    model: ModelConfig
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    forbid: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """Combinations never tried: each a map of addresses to values that may not all hold."""
    limits: LimitsConfig = LimitsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    search: SearchConfig = SearchConfig()
    scheduler: SchedulerConfig | Literal["none"] = SchedulerConfig()
    confirm: ConfirmConfig | None = None
    stop: StopConfig = StopConfig()
    resources: ResourcesConfig = ResourcesConfig()
    keep: KeepConfig = KeepConfig()

    @model_validator(mode="after")
    def _imagenet_wants_three_channels(self) -> Config:
        resnet = self.model.resnet
        if resnet is not None and resnet.weights == "imagenet" and resnet.stem == "small":
            raise ValueError(
                "stem: small has no ImageNet weights; use stem: imagenet, or weights: none"
            )
        return self

    def training_part(self) -> dict[str, Any]:
        """What decides a training: the resolved config as plain data, without absent branches."""
        keep = ("version", "name", "data", "model", "augment", "train", "objective")
        dumped = self.model_dump(mode="json", include=set(keep))
        # vars: to dump a value is not to read it (fer_ray/config/reads.py).
        return {key: _without_absent_branches(vars(self)[key], dumped[key]) for key in keep}

    def fingerprint(self) -> str:
        """sha256 of the training part but for its name: equal configs train alike."""
        part = {key: value for key, value in self.training_part().items() if key != "name"}
        text = json.dumps(part, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _without_absent_branches(section: Any, dumped: Any) -> Any:
    if not isinstance(section, Section) or not isinstance(dumped, dict):
        return dumped
    present = {name for name, value in vars(section).items() if value is not None}
    absent = set(dumped) - present if isinstance(section, OneOf) else set()
    return {
        key: _without_absent_branches(vars(section)[key], value)
        for key, value in dumped.items()
        if key not in absent
    }


_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str) -> float:
    """Read `90s`, `40m`, `4h` or `1h30m`.

    Returns:
        seconds, above 0.

    Raises:
        ValueError: another form.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ValueError(f"a duration such as 90s, 40m, 4h or 1h30m is wanted, but got {text!r}")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if seconds <= 0:
        raise ValueError(f"a duration above 0 is wanted, but got {text!r}")
    return seconds
