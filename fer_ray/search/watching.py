"""`fer-ray status`: where a search stands, and why one trial ended as it did.

Everything is read from the run's files, so it works from another terminal, on a search that has
ended, and on one whose driver was killed.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from fer_ray.config.duration import parse_duration_s
from fer_ray.search.history import RungVisit, RunHistory, TrialHistory

SILENT_S = 90.0
"""Without a lock, a driver that has not written `status.json` for so long is doubted."""
_NUM_SHOWN = 5
_BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_ASCII_BLOCKS = "_.-~=+*#"


@dataclass(frozen=True)
class Status:
    """Where a search stands.

    Attributes:
        state: `running`; `ended`; `stopped` (in order, trials are unfinished); `killed` (not ended,
            and its driver is gone); `unknown` (not ended, and nothing says if a driver lives).
        evidence: how the state is known, one sentence.
        wanted: trials to train in all; None where it is not recorded.
        eta_s: seconds until the last trial ends at the present rate, or until the time budget;
            None where nothing has ended yet or nothing is left.
        running, best, failed: a row a trial.
    """

    run: str
    metric: str
    state: str
    evidence: str
    wanted: int | None
    ended: dict[str, int]
    rejected: int
    epochs: int
    elapsed_s: float | None
    eta_s: float | None
    running: tuple[dict[str, Any], ...]
    best: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        done = sum(self.ended.values())
        wanted = "not recorded" if self.wanted is None else str(self.wanted)
        how = ", ".join(f"{count} {how}" for how, count in sorted(self.ended.items()))
        lines = [
            f"{self.run}: {self.state}; {self.evidence}",
            f"{done} of {wanted} trials ended{f' ({how})' if how else ''}, {self.epochs} epochs"
            + (f"; {self.rejected} rejected before training" if self.rejected else ""),
        ]
        if self.elapsed_s is not None:
            eta = f", about {clock(self.eta_s)} left" if self.eta_s is not None else ""
            lines.append(f"{clock(self.elapsed_s)} so far{eta}")
        for row in self.running:
            best = "no epoch yet" if row["best"] is None else f"best {row['best']:.4f}"
            lines.append(f"  running  trial {row['trial']:>3}  epoch {row['epoch']:>3}  {best}")
        for row in self.best:
            lines.append(
                f"  best     trial {row['trial']:>3}  {self.metric} {row['value']:.4f} at epoch "
                f"{row['epoch']}  ({row['ended']})"
            )
        for row in self.failed:
            lines.append(f"  failed   trial {row['trial']:>3}  {row['error']}")
        if self.state in ("killed", "stopped", "unknown"):
            lines.append(f"go on with: fer-ray resume {self.run}")
        return lines


def status_of(history: RunHistory, now: float | None = None) -> Status:
    """Where a search stands.

    Args:
        now: seconds since the epoch; the clock's where it is None.
    """
    now = time.time() if now is None else now
    running = [t for t in history.trained if t.state == "running"]
    state, evidence = _state(history, running, now)
    over = [t for t in history.trained if t.state != "running"]
    first = min((t.started for t in history.trained if t.started), default=None)
    last = max((t.finished for t in over if t.finished), default=first)
    until = now if state == "running" else last
    elapsed = until - first if first is not None and until is not None else None
    return Status(
        run=str(history.directory.path),
        metric=history.metric,
        state=state,
        evidence=evidence,
        wanted=history.wanted,
        ended=history.ended(),
        rejected=sum(t.state == "rejected" for t in history.trials),
        epochs=sum(t.epoch for t in history.trained),
        elapsed_s=elapsed,
        eta_s=_eta_s(history, over, elapsed) if state == "running" else None,
        running=tuple(
            {"trial": t.number, "epoch": t.epoch, "best": t.best if t.has_value else None}
            for t in running
        ),
        best=tuple(
            {
                "trial": t.number,
                "value": t.best,
                "epoch": t.best_epoch,
                "ended": t.ended or t.state,
            }
            for t in history.ranking[:_NUM_SHOWN]
        ),
        failed=tuple(
            {"trial": t.number, "error": t.error or "no reason recorded"}
            for t in history.trained
            if t.state == "failed"
        ),
    )


def _state(history: RunHistory, running: list[TrialHistory], now: float) -> tuple[str, str]:
    status = history.status
    session = history.sessions[-1] if history.sessions else {}
    if session.get("ended") is not None:
        left = f", {len(running)} trials unfinished" if running else ""
        return "stopped" if running else "ended", f"{session.get('how') or 'ended'}{left}"
    written = status.get("time")
    if not session and not running and written is not None and not status.get("running"):
        return "ended", f"no trial runs, last written {written}"
    silent = None
    if written is not None:
        silent = max(0.0, now - datetime.datetime.fromisoformat(written).timestamp())
    ago = "no status.json yet" if silent is None else f"last written {clock(silent)} ago"
    held = history.directory.is_worked_on()
    if held is not None:
        return ("running", f"its driver lives, {ago}") if held else ("killed", f"no driver, {ago}")
    if silent is not None and silent < SILENT_S:
        return "running", f"{ago}; whether its driver lives is not recorded"
    return "unknown", f"{ago}: probably killed; whether its driver lives is not recorded"


def _eta_s(history: RunHistory, over: list[TrialHistory], elapsed: float | None) -> float | None:
    """What is left at the rate so far, or of the time budget if that is less."""
    guesses = []
    if over and elapsed and history.wanted is not None:
        guesses.append(elapsed / len(over) * max(0, history.wanted - len(over)))
    budget = history.base.stop.time_budget if history.base else None
    if budget is not None and elapsed is not None:
        guesses.append(max(0.0, parse_duration_s(budget) - elapsed))
    return min(guesses, default=None)


# --- why ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Why:
    """Why one trial ended as it did.

    Attributes:
        changes: (address, trial 0's value, this trial's value); None where a hole is not reached.
        verdict: what ended it, and by how much.
    """

    trial: TrialHistory
    metric: str
    sign: float
    changes: tuple[tuple[str, Any, Any], ...]
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        trial = self.trial
        return {
            "trial": trial.number,
            "state": trial.state,
            "ended": trial.ended,
            "verdict": self.verdict,
            "changes": [
                {"address": address, "trial_0": ours, "this": its}
                for address, ours, its in self.changes
            ],
            "curve": list(trial.curve),
            "rungs": [asdict(visit) for visit in trial.visits],
            "best": trial.best if trial.has_value else None,
            "best_epoch": trial.best_epoch,
            "seconds": trial.seconds,
            "error": trial.error,
        }

    def lines(self, *, unicode: bool = True) -> list[str]:
        """For a terminal.

        Args:
            unicode: whether it can show block characters.
        """
        trial = self.trial
        lines = [f"trial {trial.number}: {self.verdict}"]
        lines += change_lines(self)
        values = [_objective(row) for row in trial.curve if not row.get("diverged")]
        if values:
            lines.append(
                f"curve  {sparkline(values, unicode=unicode)}  {self.metric} {values[0]:.4f} at "
                f"epoch {trial.curve[0]['epoch']}, best {trial.best:.4f} at epoch "
                f"{trial.best_epoch} of {trial.epoch} trained"
            )
        lines += [f"rung {visit.rung:>3}  {visit_text(visit)}" for visit in trial.visits]
        if trial.seconds is not None:
            lines.append(f"took   {trial.seconds:.1f} s")
        return lines


def change_lines(why: Why) -> list[str]:
    if why.trial.number == 0:
        return ["it is trial 0, the space's defaults"]
    if not why.changes:
        return ["it changed nothing against trial 0 but the seed"]
    width = max(len(address) for address, _, _ in why.changes)
    lines = ["against trial 0:"]
    for address, ours, its in why.changes:
        lines.append(f"  {address:<{width}}  {show(ours)} -> {show(its)}")
    return lines


def why_of(history: RunHistory, number: int) -> Why:
    """Why a trial ended as it did.

    Raises:
        UserError: no such trial.
    """
    trial = history.trial(number)
    first = next((t for t in history.trials if t.number == 0), trial)
    addresses = list(dict.fromkeys([*first.params, *trial.params]))
    changes = tuple(
        (address, first.params.get(address), trial.params.get(address))
        for address in addresses
        if first.params.get(address) != trial.params.get(address)
    )
    return Why(trial, history.metric, history.sign, changes, _verdict(history, trial))


def _verdict(history: RunHistory, trial: TrialHistory) -> str:
    ended = trial.ended or trial.state
    at = f"after epoch {trial.epoch}"
    stopped = next((v for v in trial.visits if v.stop), None)
    if trial.state == "rejected":
        return f"never trained: {ended}"
    if trial.state == "waiting":
        return "not started yet"
    if trial.state == "running":
        return f"still running in the study, {at}"
    if ended == "pruned" and stopped is not None:
        return f"stopped by ASHA at rung {stopped.rung}: {visit_text(stopped)}"
    if ended == "complete":
        return f"complete: trained to its last epoch, {trial.epoch}"
    if ended == "early stop":
        return f"early stop {at}: no gain since epoch {trial.best_epoch}"
    if ended == "diverged":
        return f"diverged in epoch {trial.epoch}: the loss left the finite numbers"
    if ended == "time budget":
        return f"the search's time budget ended it {at}, not its figures"
    if trial.state == "failed":
        return f"failed {at}: {trial.error or 'no reason recorded'}"
    return f"{ended} {at}"


def visit_text(visit: RungVisit) -> str:
    """A trial at a rung, in words."""
    text = f"rank {visit.rank} of {visit.count} so far"
    if visit.value is None or visit.threshold is None:
        text += "; what it took: not recorded"
        return text + (": stopped" if visit.stop else ": went on")
    gap = abs(visit.threshold - visit.value)
    text += f", {visit.value:.4f} against the {visit.threshold:.4f} it took"
    if visit.stop:
        return text + f": stopped, {gap:.4f} short"
    exempt = gap > 0 and visit.rank > 1
    return text + (f": {gap:.4f} short, yet never stopped" if exempt else ": went on")


def _objective(row: dict[str, Any]) -> float:
    return float(row.get("objective", row["best_objective"]))


def sparkline(values: list[float], *, unicode: bool = True) -> str:
    """A curve in one line of text, lowest to highest; long ones are averaged to 40 marks."""
    blocks = _BLOCKS if unicode else _ASCII_BLOCKS
    if len(values) > 40:
        edges = [round(index * len(values) / 40) for index in range(41)]
        values = [statistics.fmean(values[a:b]) for a, b in itertools.pairwise(edges)]
    low, high = min(values), max(values)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value - low) * scale)] for value in values)


def show(value: Any) -> str:
    """A parameter as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} days"
