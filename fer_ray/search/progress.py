"""What a running search prints to stderr: one live line on a terminal, a line a finished trial."""

from __future__ import annotations

import sys
import time

from fer_ray.search.live import LiveTrial
from fer_ray.search.study import Study

_WIDTH = 100


class Progress:
    """Prints as trials report and end."""

    def __init__(self, study: Study, *, live: bool) -> None:
        self.study = study
        self.live = live
        self.started = time.time()
        self._told: set[int] = set()
        self._is_terminal = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Talk, if anyone listens."""
        if self.live:
            self._line(text)

    def on_change(self, trial: LiveTrial) -> None:
        """A trial reported or ended."""
        if not self.live:
            return
        if trial.ended is not None and trial.number not in self._told:
            self._told.add(trial.number)
            self._line(self._finished(trial))
        if self._is_terminal:
            sys.stderr.write("\r" + self._running()[:_WIDTH].ljust(_WIDTH))
            sys.stderr.flush()

    def close(self) -> None:
        """Clear the live line."""
        if self.live and self._is_terminal:
            sys.stderr.write("\r" + " " * _WIDTH + "\r")
            sys.stderr.flush()

    def _line(self, text: str) -> None:
        if self._is_terminal:
            sys.stderr.write("\r" + " " * _WIDTH + "\r")
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _finished(self, trial: LiveTrial) -> str:
        values = trial.asked.params
        names = [
            str(values[a]) for a in ("model", "train.optimizer", "train.schedule") if a in values
        ]
        best = f"{trial.best:.4f}" if trial.has_value else "  none"
        text = (
            f"{self._clock()}  trial {trial.number:>3}  {trial.ended:<12} epoch {trial.epoch:>3}  "
            f"best {best}  {trial.seconds:>6.1f} s  {' '.join(names)}"
        )
        return text + (f"\n       {trial.error}" if trial.error else "")

    def _running(self) -> str:
        trials = self.study.trials.values()
        running = [t for t in trials if t.ended is None]
        best = self.study.ranking()[:1]
        parts = [f"{self._clock()}  {len(trials) - len(running)}/{self.study.num_trials} ended"]
        parts += [f"best {t.best:.4f} (trial {t.number})" for t in best]
        parts += [f"#{t.number} epoch {t.epoch}" for t in running]
        return "  ".join(parts)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.time() - self.started), 60)
        return f"{minutes:>3}:{seconds:02d}"
