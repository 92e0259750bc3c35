"""The one typed config: every option, its type, its rule and its only default.

A search space is this config with holes (`fer_ray.config.space`). The sections stand in
`fer_ray.config.sections`, bounds with their leaves; rules that span several leaves stand in the
validators. Nothing else in fer-ray repeats a default.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fer_ray.config.sections.augment import AugmentConfig
from fer_ray.config.sections.base import OneOf, Section
from fer_ray.config.sections.data import DataConfig
from fer_ray.config.sections.model import ModelConfig
from fer_ray.config.sections.search import (
    ConfirmConfig,
    KeepConfig,
    LimitsConfig,
    ObjectiveConfig,
    ResourcesConfig,
    SchedulerConfig,
    SearchConfig,
    StopConfig,
)
from fer_ray.config.sections.train import TrainConfig


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
