"""What the driver knows of a trial that is under way or over."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.search.asha import Decision


@dataclass(frozen=True)
class Asked:
    """A configuration to train.

    Attributes:
        number: the trial's number in the study.
        params: address -> value of its active holes.
        config: resolved, with a seed of its own.
        origin: `defaults`, `start_from`, `grid`, `sampler` or `repeat`.
        repeat_of: the trial that first had these params, for a repeat.
        asked: when the sampler was asked, in seconds since the epoch.
        ask_s: how long it took.
    """

    number: int
    params: dict[str, Any]
    config: Config
    origin: str
    repeat_of: int | None
    asked: float
    ask_s: float


@dataclass
class Attempt:
    """One process that worked on a trial.

    Attributes:
        slot: place in the timeline, from 0.
        started, ended: seconds since the epoch; `ended` is None where it runs or was killed.
        from_epoch: epochs that it found done.
    """

    slot: int
    started: float
    from_epoch: int
    ended: float | None = None


@dataclass
class LiveTrial:
    """A trial that has begun; see "What study.db holds" in docs/design.md."""

    asked: Asked
    started: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[tuple[Decision, float]] = field(default_factory=list)
    ended: str | None = None
    finished: float | None = None
    bundle_id: str | None = None
    error: str | None = None

    @property
    def number(self) -> int:
        return self.asked.number

    @property
    def group(self) -> int:
        """The first trial of the same configuration: itself, unless it is a repeat."""
        return self.number if self.asked.repeat_of is None else self.asked.repeat_of

    @property
    def epoch(self) -> int:
        """Epochs trained and reported."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def has_value(self) -> bool:
        return any(not row["diverged"] for row in self.curve)

    @property
    def best(self) -> float:
        """Best objective so far; NaN before the first finite epoch."""
        return float(self.curve[-1]["best_objective"]) if self.has_value else math.nan

    @property
    def is_stopped_by_asha(self) -> bool:
        return any(decision.stop for decision, _ in self.decisions)

    @property
    def seconds(self) -> float:
        """In its processes; of a killed one until its last epoch, of a running one until now."""
        return sum(self._seconds_of(attempt) for attempt in self.attempts)

    def _seconds_of(self, attempt: Attempt) -> float:
        ended = attempt.ended
        if ended is None and attempt is self.attempts[-1] and self.ended is None:
            ended = time.time()
        if ended is None:
            times = [row["time"] for row in self.curve if "time" in row]
            following = [a.started for a in self.attempts if a.started > attempt.started]
            until = min(following, default=math.inf)
            ended = max((t for t in times if t < until), default=attempt.started)
        return max(0.0, ended - attempt.started)

    def close_attempt(self, now: float) -> None:
        """The process that worked on it has ended in order."""
        if self.attempts and self.attempts[-1].ended is None:
            self.attempts[-1].ended = now

    def rung_rows(self, sign: float) -> list[dict[str, Any]]:
        """The visits to rungs as `study.db` holds them, in the objective's own direction."""
        return [
            {
                "rung": decision.rung,
                "rank": decision.rank,
                "count": decision.count,
                "stop": decision.stop,
                "value": sign * decision.gain,
                "threshold": sign * decision.threshold,
                "time": when,
            }
            for decision, when in self.decisions
        ]
