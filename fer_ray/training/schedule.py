"""Learning-rate schedules, as a factor on the config's learning rate.

`factor(progress)` is asked before every step, with the progress in epochs (1.5 = in the middle of
the second). All but plateau are pure functions of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fer_ray.config.sections.train import ScheduleConfig

Factor = Callable[[float], float]


def constant() -> Factor:
    return lambda progress: 1.0


def step(step_epochs: int, gamma: float) -> Factor:
    return lambda progress: gamma ** math.floor(progress / step_epochs)


def exponential(gamma: float) -> Factor:
    return lambda progress: gamma ** math.floor(progress)


def cosine(epochs: int, warmup_epochs: int) -> Factor:
    """Linear from 0 over the warm-up, then half a cosine to 0 (arXiv 1608.03983, no restarts)."""

    def factor(progress: float) -> float:
        if progress < warmup_epochs:
            return progress / warmup_epochs
        share = (progress - warmup_epochs) / max(epochs - warmup_epochs, 1)
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    return factor


def onecycle(epochs: int, warmup_frac: float) -> Factor:
    def factor(progress: float) -> float:
        share = min(progress / epochs, 1.0)
        return share / warmup_frac if share < warmup_frac else (1 - share) / (1 - warmup_frac)

    return factor


class Plateau:
    """Shrinks when the objective has not gained for `patience` epochs."""

    def __init__(self, factor: float, patience: int) -> None:
        self.shrink = factor
        self.patience = patience
        self.current = 1.0
        self.best = -math.inf
        self.epochs_without_gain = 0

    def factor(self, progress: float) -> float:
        return self.current

    def observe(self, gain: float) -> None:
        """Take an epoch's objective, as a number where more is better."""
        if gain > self.best:
            self.best, self.epochs_without_gain = gain, 0
            return
        self.epochs_without_gain += 1
        if self.epochs_without_gain >= self.patience:
            self.current *= self.shrink
            self.epochs_without_gain = 0


class Schedule:
    """The schedule of a config, with the little state that a resume needs."""

    def __init__(self, config: ScheduleConfig, epochs: int) -> None:
        self.plateau: Plateau | None = None
        if config.cosine is not None:
            self.factor = cosine(epochs, config.cosine.warmup_epochs)
        elif config.step is not None:
            self.factor = step(config.step.step_epochs, config.step.gamma)
        elif config.exponential is not None:
            self.factor = exponential(config.exponential.gamma)
        elif config.onecycle is not None:
            self.factor = onecycle(epochs, config.onecycle.warmup_frac)
        elif config.plateau is not None:
            self.plateau = Plateau(config.plateau.factor, config.plateau.patience)
            self.factor = self.plateau.factor
        else:
            self.factor = constant()

    def observe(self, gain: float) -> None:
        if self.plateau is not None:
            self.plateau.observe(gain)

    def state(self) -> dict[str, Any]:
        if self.plateau is None:
            return {}
        best = self.plateau.best
        return {
            "current": self.plateau.current,
            "best": best if math.isfinite(best) else None,
            "epochs_without_gain": self.plateau.epochs_without_gain,
        }

    def load(self, state: dict[str, Any]) -> None:
        if self.plateau is not None:
            self.plateau.current = float(state["current"])
            self.plateau.best = -math.inf if state["best"] is None else float(state["best"])
            self.plateau.epochs_without_gain = int(state["epochs_without_gain"])
