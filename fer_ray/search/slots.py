"""Which slot trained which trial when, and how much of the time slots stood idle."""

from __future__ import annotations

from dataclasses import dataclass

from fer_ray.search.history import Attempt, RunHistory, TrialHistory

_TOUCH_S = 0.005
"""A trial that starts this much before another's end still takes over its slot."""


@dataclass(frozen=True)
class Stay:
    """A trial in a slot; seconds since the first trial's start."""

    trial: int
    slot: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Slots:
    """The slots of a search.

    Attributes:
        count: slots that were used.
        span_s: from the first trial's start to the last one's end.
        stays: in order of their start.
    """

    count: int
    span_s: float
    stays: tuple[Stay, ...]

    @property
    def busy_share(self) -> float:
        """Share of slots x span in which a trial ran; 0 without any."""
        total = self.count * self.span_s
        return sum(s.end_s - s.start_s for s in self.stays) / total if total else 0.0

    @property
    def tail_share(self) -> float:
        """Share of slots x span that stood idle because no trial was left to start."""
        total = self.count * self.span_s
        last = dict.fromkeys(range(self.count), 0.0)
        for stay in self.stays:
            last[stay.slot] = max(last[stay.slot], stay.end_s)
        return sum(self.span_s - end for end in last.values()) / total if total else 0.0


def slots_of(history: RunHistory, now: float | None = None) -> Slots:
    """Who trained where: by the slots that the run noted, else dealt out by the times.

    Args:
        now: seconds since the epoch, until when running trials last; the latest time that the run
            recorded where it is None.
    """
    attempts = [(a, trial) for trial in history.trained for a in trial.attempts]
    known = [a.ended or a.started for a, _ in attempts]
    known += [row["time"] for trial in history.trained for row in trial.curve if "time" in row]
    latest = max(known, default=0.0) if now is None else now
    # Of a process that was killed, only its last epoch is known.
    spans = sorted(
        (a.started, max(a.ended or _last_sign(trial, a, latest), a.started), a.slot, trial.number)
        for a, trial in attempts
    )
    if not spans:
        return Slots(0, 0.0, ())
    first = spans[0][0]
    span_s = max(end for _, end, _, _ in spans) - first
    if all(slot is not None for _, _, slot, _ in spans):
        stays = [Stay(n, slot or 0, s - first, e - first) for s, e, slot, n in spans]
    else:
        stays = _dealt([(start - first, end - first, number) for start, end, _, number in spans])
    return Slots(1 + max(stay.slot for stay in stays), span_s, tuple(stays))


def _last_sign(trial: TrialHistory, attempt: Attempt, latest: float) -> float:
    """Until when an attempt without a recorded end was alive."""
    if trial.state == "running" and attempt is trial.attempts[-1]:
        return latest
    later = [a.started for a in trial.attempts if a.started > attempt.started]
    until = min(later, default=latest)
    times = [row["time"] for row in trial.curve if attempt.started <= row.get("time", 0) <= until]
    return float(max(times, default=attempt.started))


def _dealt(times: list[tuple[float, float, int]]) -> list[Stay]:
    """Each trial to the slot that became free last before its start, else to a new one."""
    free: list[float] = []
    stays = []
    for start, end, number in times:
        open_slots = [slot for slot, at in enumerate(free) if at <= start + _TOUCH_S]
        if open_slots:
            slot = max(open_slots, key=lambda index: free[index])
            free[slot] = end
        else:
            slot = len(free)
            free.append(end)
        stays.append(Stay(number, slot, start, end))
    return stays
