"""The study: what a search has asked, seen, decided and told.

Hands out configurations, takes in epochs, decides with ASHA, tells Optuna how each trial ended:
COMPLETE at its last epoch, PRUNED when stopped before, FAIL on an error. The value told is the
best epoch's, never the last one's.

`study.db` is the only truth that outlives the process, and a study opened on a file that has trials
goes on with them (docs/design.md says what stands there).
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fer_ray.config.space import SearchSpace
from fer_ray.runs import RunDirectory
from fer_ray.search.asha import Asha, Decision, rungs_of
from fer_ray.search.asking import Asker
from fer_ray.search.live import Asked, Attempt, LiveTrial
from fer_ray.search.points import num_configurations
from fer_ray.search.study_file import StudyFile

FORMAT = 1
"""Of the attributes in `study.db`."""


class Study:
    """One search, new or interrupted.

    Args:
        run: its directory.
        space: checked.
        data_fingerprint: noted in a new study.
        path: of `study.db`; in the run where it is None.
        start_points: of the run that `search.start_from` names; an interrupted study has its own.
    """

    def __init__(
        self,
        run: RunDirectory,
        space: SearchSpace,
        data_fingerprint: str = "",
        path: Path | None = None,
        start_points: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.run = run
        self.space = space
        base = space.base
        self.sign = 1.0 if base.objective.goal == "maximize" else -1.0
        rungs: tuple[int, ...] = ()
        reduction = 2
        if base.scheduler != "none":
            reduction = base.scheduler.asha.reduction
            rungs = rungs_of(base.scheduler.asha.grace_epochs, reduction, base.train.epochs)
        self.asha = Asha(rungs, reduction, exempt={0})
        self.trials: dict[int, LiveTrial] = {}
        self._waiting: dict[int, LiveTrial] = {}  # asked ahead, not begun
        self._unwritten: deque[int] = deque()  # known to Optuna, not in the file
        self._ahead: deque[int] = deque()  # asked ahead, not handed out
        self.file = StudyFile(path or run.study_db, base.name, base.objective.goal)
        start_points = self.file.attributes().get("start_points", list(start_points))
        self.asker = Asker(space, start_points)
        self._load()
        self.asker.expect([live.asked for live in self.trials.values()])
        self.sessions: list[dict[str, Any]] = list(self.file.attributes().get("sessions", []))
        if "format" not in self.file.attributes():
            for name, value in {
                "space_sha256": space_sha256(space),
                "data_fingerprint": data_fingerprint,
                "rungs": list(rungs),
                "reduction": reduction,
                "epochs": base.train.epochs,
                "start_points": start_points,
                "format": FORMAT,
            }.items():
                self.file.note(name, value)

    # --- what the file holds already --------------------------------------------------------------

    def _load(self) -> None:
        """Take in the trials of the file; those that run there are to be gone on with."""
        for frozen in self.file.trials():
            self.asker.take_in(frozen)
            if frozen.user_attrs.get("rejected"):
                continue
            live = self._live_of(frozen)
            self.trials[live.number] = live
            for decision, _ in live.decisions:
                self.asha.restore(live.number, decision.rung, decision.gain)
            self._exempt_repeat(live.asked)
            if live.ended is None and live.is_stopped_by_asha:
                self.finish(live.number, "pruned")
            elif live.ended is None:
                self._ahead.append(live.number)

    def _live_of(self, frozen: FrozenTrial) -> LiveTrial:
        noted = frozen.user_attrs
        decisions = [
            (
                Decision(
                    row["rung"],
                    row["rank"],
                    row["count"],
                    row["stop"],
                    self.sign * row["value"],
                    self.sign * row["threshold"],
                ),
                row["time"],
            )
            for row in noted.get("rungs", [])
        ]
        bundle_id = noted.get("bundle_id")
        return LiveTrial(
            self.asker.asked(frozen),
            started=noted.get("started", 0.0),
            attempts=[Attempt(**row) for row in noted.get("attempts", [])],
            curve=list(noted.get("curve", [])),
            decisions=decisions,
            ended=noted.get("ended"),
            finished=noted.get("finished"),
            bundle_id=bundle_id if self.run.bundle(frozen.number).is_dir() else None,
            error=noted.get("error"),
        )

    @property
    def unfinished(self) -> list[LiveTrial]:
        """Trials under way, or left by an interruption."""
        return [live for live in self.trials.values() if live.ended is None]

    # --- sessions ---------------------------------------------------------------------------------

    def open_session(self, slots: int) -> None:
        """A driver starts to work on the study."""
        self.sessions.append(
            {"started": time.time(), "ended": None, "how": None, "slots": slots}
            | {"trials": self.num_trials}
        )
        self.file.note("sessions", self.sessions)

    def close_session(self, how: str) -> None:
        """The driver ends; docs/design.md lists the words for how."""
        self.sessions[-1].update(ended=time.time(), how=how)
        self.file.note("sessions", self.sessions)

    def elapsed_s(self) -> float:
        """Wall time of all sessions; of a killed one until the last thing it wrote."""
        total = 0.0
        for session, following in zip(self.sessions, [*self.sessions[1:], None], strict=True):
            ended = session["ended"]
            if ended is None and following is None:
                ended = time.time()
            if ended is None:
                until = following["started"] if following else 0.0
                ended = max((t for t in self._times() if t < until), default=session["started"])
            total += max(0.0, ended - session["started"])
        return total

    def _times(self) -> Iterator[float]:
        for live in self.trials.values():
            yield live.started
            yield from (row["time"] for row in live.curve if "time" in row)

    # --- asking -----------------------------------------------------------------------------------

    @functools.cached_property
    def num_configurations(self) -> int:
        """Configurations wanted: `search.trials`, or the allowed points of a smaller grid."""
        return num_configurations(self.space)

    @property
    def num_trials(self) -> int:
        """Trials wanted: each configuration on so many seeds as `search.repeat` says."""
        return self.num_configurations * self.space.base.search.repeat

    @property
    def wants_more(self) -> bool:
        """Whether there is something to hand out."""
        return bool(self._ahead) or self._num_known < self.num_trials

    def is_done(self) -> bool:
        """Whether every trial that is wanted has ended."""
        return len(self.trials) >= self.num_trials and not self.unfinished

    @property
    def _num_known(self) -> int:
        return len(self.trials) + len(self._waiting)

    def prepare(self) -> None:
        """Ask ahead, so that the next free slot need not wait for the sampler."""
        if not self._ahead and self.wants_more:
            self._ahead.append(self._sample().number)

    def ask(self) -> Asked:
        """The next configuration: an interrupted trial, a fixed point, or a sampled one.

        It is not in the file until it begins.

        Raises:
            FerRayError: hardly any configuration of this space is allowed.
        """
        number = self._ahead.popleft() if self._ahead else self._sample().number
        live = self.trials.get(number) or self._waiting[number]
        return live.asked

    def give_back(self, number: int) -> None:
        """What was handed out and could not be worked on is handed out again, first of all."""
        self._ahead.appendleft(number)

    def _sample(self) -> LiveTrial:
        asked, rejected = self.asker.ask()
        self._unwritten.extend([*rejected, asked.number])
        live = LiveTrial(asked)
        self._waiting[asked.number] = live
        self._exempt_repeat(asked)
        return live

    def _exempt_repeat(self, asked: Asked) -> None:
        """The defaults are exempt from ASHA on every seed."""
        if asked.repeat_of == 0:
            self.asha.exempt.add(asked.number)

    # --- a trial's life ---------------------------------------------------------------------------

    def begin(self, number: int) -> LiveTrial:
        """A process starts to work on a trial, for the first time or again."""
        now = time.time()
        live = self._waiting.pop(number, None)
        if live is None:
            live = self.trials[number]
        else:
            live.started = now
            self.trials[number] = live
            self.run.checkpoint(number).unlink(missing_ok=True)  # of a start that was never noted
            self.run.write_resolved(number, live.asked.config)
        taken = {
            other.attempts[-1].slot
            for other in self.unfinished
            if other is not live and other.attempts and other.attempts[-1].ended is None
        }
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        live.attempts.append(Attempt(slot, now, live.epoch))
        if self._unwritten and self._unwritten[0] <= number:
            self._write_up_to(number)
        else:  # it stands there since an earlier start, or since a later trial began before it
            noted = {"started": live.started, "attempts": [asdict(a) for a in live.attempts]}
            self.file.report(number, noted, {})
            self.file.flush()
        return live

    def _write_up_to(self, number: int) -> None:
        """Bring trials into the file; numbers are given there in order, so none is left out."""
        while self._unwritten and self._unwritten[0] <= number:
            following = self._unwritten.popleft()
            frozen = self.asker.frozen(following)
            live = self.trials.get(following) or self._waiting.get(following)
            if live is not None:
                frozen.user_attrs = self._first_attributes(live)
                frozen.datetime_start = datetime.datetime.now()
            self.file.add(frozen)

    def _first_attributes(self, live: LiveTrial) -> dict[str, Any]:
        asked = live.asked
        noted = {
            "seed": asked.config.train.seed,
            "origin": asked.origin,
            "repeat_of": asked.repeat_of,
            "checkpoint": str(self.run.checkpoint(live.number).relative_to(self.run.path)),
            "asked": asked.asked,
            "ask_s": round(asked.ask_s, 6),
            "started": live.started or None,
            "attempts": [asdict(attempt) for attempt in live.attempts],
        }
        return {name: value for name, value in noted.items() if value is not None}

    def record(self, number: int, rows: list[dict[str, Any]]) -> bool:
        """Take in epochs of a trial, in order.

        Returns:
            whether ASHA stops the trial now.
        """
        live = self.trials[number]
        stop = False
        reports: dict[int, float] = {}
        for row in rows:
            if row["epoch"] <= live.epoch:
                continue  # a retried trial reports epochs again
            live.curve.append(row)
            if row["diverged"]:
                continue
            # Best so far: it is what scheduler, sampler and ranking see, and what Optuna takes
            # for a pruned trial's value.
            reports[row["epoch"]] = row["best_objective"]
            if stop:
                continue
            decision = self.asha.decide(number, row["epoch"], self.sign * row["best_objective"])
            if decision is not None:
                live.decisions.append((decision, time.time()))
                stop = decision.stop
        if reports or rows:
            for step, value in reports.items():
                self.asker.report(number, step, value)
            attributes = {"curve": live.curve, "rungs": live.rung_rows(self.sign)}
            self.file.report(number, attributes, reports)
        return stop

    def suspend(self, number: int) -> None:
        """A trial was stopped in order, to be gone on with: it stays RUNNING in the file."""
        live = self.trials[number]
        live.close_attempt(time.time())
        self.file.report(number, {"attempts": [asdict(a) for a in live.attempts]}, {})
        self.file.flush()

    def finish(
        self, number: int, ended: str, *, bundle_id: str | None = None, error: str | None = None
    ) -> None:
        """Tell Optuna how a trial ended.

        Args:
            number: the trial.
            ended: one of the words of docs/design.md.
            bundle_id: of the bundle it left.
            error: last line of what went wrong.
        """
        live = self.trials[number]
        if live.ended is not None:
            return
        now = time.time()
        live.close_attempt(now)
        live.ended, live.bundle_id, live.error, live.finished = ended, bundle_id, error, now
        attributes: dict[str, Any] = {
            "ended": ended,
            "curve": live.curve,
            "rungs": live.rung_rows(self.sign),
            "attempts": [asdict(attempt) for attempt in live.attempts],
            "bundle_id": bundle_id,
            "error": error,
            "finished": now,
            "seconds": round(live.seconds, 3),
        }
        if ended == "failed" or not live.has_value:
            state, value = TrialState.FAIL, None
        elif ended in ("complete", "early stop"):
            state, value = TrialState.COMPLETE, live.best
        else:
            state, value = TrialState.PRUNED, live.best
        told = value if state == TrialState.COMPLETE else None
        self.asker.tell(number, told, state)
        self.file.finish(number, state, value, attributes)

    def close(self) -> None:
        """Write what waits. What was asked ahead and never begun is forgotten."""
        self.file.close()

    def ranking(self) -> list[LiveTrial]:
        """Trials with a value, best first; ties to the earlier one.

        With repeats the mean over a configuration's seeds comes first: one lucky seed wins nothing.
        """
        having = [live for live in self.trials.values() if live.has_value]
        if self.space.base.search.repeat == 1:
            return sorted(having, key=lambda live: (-self.sign * live.best, live.number))
        values: dict[int, list[float]] = {}
        for live in having:
            values.setdefault(live.group, []).append(live.best)
        mean = {group: sum(found) / len(found) for group, found in values.items()}
        return sorted(
            having,
            key=lambda live: (
                -self.sign * mean[live.group],
                live.group,
                -self.sign * live.best,
                live.number,
            ),
        )


def space_sha256(space: SearchSpace) -> str:
    """What must not change while a run lives: everything but what `resume` may extend."""
    import json

    config = space.base.model_dump(mode="json")
    for name in ("stop", "resources", "keep", "confirm"):
        config.pop(name)
    config["search"].pop("trials")
    holes = [asdict(hole) for hole in space.holes]
    text = json.dumps({"config": config, "holes": holes}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
