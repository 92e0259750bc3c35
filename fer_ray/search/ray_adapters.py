"""Ray Tune's searcher, scheduler and callback over one `Study`; no decision is made here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fer_ray.search.live import LiveTrial
from fer_ray.search.stopping import StopWatch
from fer_ray.search.study import Study

MAX_FAILURES = 2
"""Times that a trial whose process died is started again, from its checkpoint."""


class StudyBridge:
    """What searcher, scheduler and callback share: the study, the clock, and who listens.

    Ray pickles and copies whatever it is given; a bridge stays itself and leaves no state behind,
    because `study.db` is the only truth.

    Args:
        study: asked and told.
        on_change: a trial began, reported or ended.
        on_tick: called a few times a second.
        deadline: seconds since the epoch; no trial starts after it.
        max_concurrent: trials handed out at once; None leaves it to the cluster.
        num_slots: slots to be filled at once; 0 fills one after the other.
        ahead: trials handed out beyond those.
    """

    def __init__(
        self,
        study: Study,
        on_change: Callable[[LiveTrial], None],
        *,
        on_tick: Callable[[], None] = lambda: None,
        deadline: float | None = None,
        max_concurrent: int | None = None,
        num_slots: int = 0,
        ahead: int = 1,
    ) -> None:
        self.study = study
        self.on_change = on_change
        self.on_tick = on_tick
        self.deadline = deadline
        self.max_concurrent = max_concurrent
        self.num_slots = num_slots
        self.ahead = ahead
        self.stop = StopWatch(study.run)
        self.numbers: dict[str, int] = {}
        self.handed_out: set[int] = set()
        self.running: set[int] = set()
        self.has_freed_slot = False
        self.errors: Counter[int] = Counter()
        self.target_reached = False
        self.fatal: BaseException | str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyBridge:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (_Gone, ())

    @property
    def why_over(self) -> str | None:
        """Why no further trial starts; None while there may be more."""
        if self.fatal is not None:
            return "failed"
        if self.target_reached:
            return "target"
        if self.stop.is_asked:
            return "stopped"
        if self.deadline is not None and time.time() >= self.deadline:
            return "time budget"
        return None

    @property
    def num_starting(self) -> int:
        """Slots whose process is on its way: those in which nothing trains yet."""
        return max(0, self.num_slots - len(self.running))

    @property
    def is_asked_enough(self) -> bool:
        """Whether as many trials are handed out as may be."""
        if self.max_concurrent is not None and len(self.handed_out) >= self.max_concurrent:
            return True
        return len(self.handed_out) - len(self.running) >= self.num_starting + self.ahead

    def end(self, number: int) -> None:
        """A trial has left its slot."""
        self.handed_out.discard(number)
        if number in self.running:
            self.running.remove(number)
            self.has_freed_slot = True

    def note_target(self, live: LiveTrial) -> None:
        target = self.study.space.base.stop.target
        if target is not None and live.has_value:
            sign = self.study.sign
            self.target_reached = self.target_reached or sign * live.best >= sign * target

    def take_in(self, number: int, result: dict[str, Any]) -> bool:
        """A trial's report; gives whether the trial stops now."""
        study, live = self.study, self.study.trials[number]
        if live.ended is not None:
            return True
        stop = study.record(number, result.get("rows", []))
        self.note_target(live)
        ended = result.get("ended")
        is_over = stop or ended is not None or self.target_reached
        if ended == "stopped":
            study.suspend(number)
            self.fatal = result.get("fatal", self.fatal)
        elif ended is not None:
            study.finish(
                number, ended, bundle_id=result.get("bundle_id"), error=result.get("error")
            )
        elif stop:
            study.finish(number, "pruned")
        elif self.target_reached:
            study.finish(number, "target elsewhere")
        self.on_change(live)
        return is_over

    def guarded(self, work: Callable[[], Any], otherwise: Any) -> Any:
        """Do something; a fault of the machine (a full disk) ends the search, not the driver.

        Ray Tune takes an exception here for a fault of the trial and goes on.
        """
        if self.fatal is not None:
            return otherwise
        try:
            return work()
        except Exception as error:  # noqa: BLE001
            self.fatal = error
            return otherwise


class _Gone:
    """Stands where a bridge was pickled."""


class StudySearcher(Searcher):
    """Asks the study, tells it the end of each trial."""

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        bridge = self.bridge
        if bridge.why_over is not None:
            return Searcher.FINISHED
        if not bridge.study.wants_more:
            # What is handed out may come back: a node can die under a process that is starting.
            return None if bridge.handed_out else Searcher.FINISHED
        if bridge.is_asked_enough:
            return None
        asked = bridge.guarded(bridge.study.ask, None)
        if asked is None:
            return Searcher.FINISHED
        bridge.numbers[trial_id] = asked.number
        bridge.handed_out.add(asked.number)
        return {
            "number": asked.number,
            "config": asked.config.training_part(),
            "params": asked.params,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        bridge = self.bridge
        number = bridge.numbers[trial_id]
        bridge.end(number)
        live = bridge.study.trials.get(number)
        if error and (live is None or live.ended is None):
            bridge.errors[number] += 1
            if bridge.errors[number] <= MAX_FAILURES:
                bridge.study.give_back(number)
                return
        if live is None:
            return  # never begun: the search was over before a slot was free
        if error and live.ended is None:
            why = "the trial's process died, again and again"
            bridge.guarded(lambda: bridge.study.finish(number, "failed", error=why), None)
        bridge.guarded(lambda: bridge.on_change(live), None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: fer-ray resumes from `study.db`."""


class StudyScheduler(FIFOScheduler):
    """Brings every report to the study and carries out its decisions.

    Reports arrive here and not in the searcher, because Tune tells the searcher nothing of the
    report that stops a trial.
    """

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = int(trial.config["number"])
        stop = self.bridge.guarded(lambda: self.bridge.take_in(number, result), True)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial that takes over a process; Tune calls this in every turn of its loop.

        Tune itself gives the process to any trial that waits, and ends the one that this trial was
        to have, though it may be about to start: where trials end faster than processes start, no
        slot would ever be filled. The oldest of those that wait have their process on the way.
        """
        bridge = self.bridge
        bridge.guarded(bridge.on_tick, None)
        if bridge.why_over is not None:
            # What waits for a slot is not begun any more.
            for trial in list(tune_controller.get_live_trials()):
                if trial.status == Trial.PENDING:
                    tune_controller.stop_trial(trial)
        else:
            bridge.guarded(bridge.study.prepare, None)
        bridge.guarded(bridge.study.file.flush_if_due, None)
        if not bridge.has_freed_slot:
            return None
        bridge.has_freed_slot = False
        waiting = [t for t in tune_controller.get_live_trials() if t.status == Trial.PENDING]
        waiting.sort(key=lambda trial: int(trial.config["number"]))
        without_process = waiting[max(0, bridge.num_starting - 1) :]
        return without_process[0] if without_process else None


class Silence(TrialProgressCallback):
    """In the place of the one that Tune adds, which prints whatever its verbosity."""

    def _print(self, msg: str) -> None:
        """Nothing."""


class StudyCallback(Callback):
    """Tells the study when a trial's process begins."""

    def __init__(self, bridge: StudyBridge) -> None:
        self.bridge = bridge

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        bridge = self.bridge
        number = int(trial.config["number"])
        bridge.running.add(number)
        live = bridge.guarded(lambda: bridge.study.begin(number), None)
        if live is not None:
            bridge.guarded(lambda: bridge.on_change(live), None)
