"""Ray Tune's searcher and scheduler interfaces over one `Study`; no decision is made here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fer_ray.config.schema import parse_duration_s
from fer_ray.search.study import LiveTrial, Study


class StudyBridge:
    """What searcher and scheduler share: the study, the clock, and who listens.

    Ray pickles and copies whatever it is given; a bridge stays itself and leaves no state behind,
    because `study.db` is the only truth.
    """

    def __init__(self, study: Study, on_change: Callable[[LiveTrial], None]) -> None:
        self.study = study
        self.on_change = on_change
        budget = study.space.base.stop.time_budget
        self.deadline = time.time() + parse_duration_s(budget) if budget is not None else None
        self.numbers: dict[str, int] = {}
        self.target_reached = False

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyBridge:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (_Gone, ())

    @property
    def is_over(self) -> bool:
        """No further trial starts: the time is used up or the target is reached."""
        return self.target_reached or (self.deadline is not None and time.time() >= self.deadline)

    def note_target(self, live: LiveTrial) -> None:
        target = self.study.space.base.stop.target
        if target is not None and live.has_value:
            sign = self.study.sign
            self.target_reached = self.target_reached or sign * live.best >= sign * target


class _Gone:
    """Stands where a bridge was pickled."""


class StudySearcher(Searcher):
    """Asks the study, tells it the end of each trial."""

    def __init__(self, bridge: StudyBridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        bridge = self.bridge
        if bridge.is_over or len(bridge.study.trials) >= bridge.study.num_trials:
            return Searcher.FINISHED
        asked = bridge.study.ask()
        bridge.numbers[trial_id] = asked.number
        return {"number": asked.number, "config": asked.config.training_part()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        live = self.bridge.study.trials[self.bridge.numbers[trial_id]]
        if error and live.ended is None:
            why = "the trial's process died, again and again"
            self.bridge.study.finish(live.number, "failed", error=why)
        self.bridge.on_change(live)

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
        study = self.bridge.study
        number = int(trial.config["number"])
        live = study.trials[number]
        if live.ended is not None:
            return str(TrialScheduler.STOP)
        stop = study.record(number, result.get("rows", []))
        self.bridge.note_target(live)
        ended = result.get("ended")
        if ended is not None:
            study.finish(
                number, ended, bundle_id=result.get("bundle_id"), error=result.get("error")
            )
        elif stop:
            study.finish(number, "pruned")
        elif self.bridge.target_reached and not live.ended:
            stop = True
            study.finish(number, "target reached elsewhere")
        self.bridge.on_change(live)
        return str(TrialScheduler.STOP if stop or ended else TrialScheduler.CONTINUE)
