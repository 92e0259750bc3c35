"""What a search is told: its goal, what it tries, who goes on, when it ends, what it takes and
keeps.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fer_ray.config.duration import parse_duration_s
from fer_ray.config.sections.base import Count, NonNegative, Section


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
