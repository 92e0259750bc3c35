"""`study.db`: Optuna's SQLite file, written by one process, a transaction a change.

Optuna's own calls commit each parameter, value and attribute by itself. Here what belongs together
is one transaction: a trial appears with all its parameters, ends with its curve and its state, and
a file that a killed process leaves holds whole changes only. Reports wait up to half a second for
each other; a start and an end do not wait.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_REPORTS_WAIT_S = 0.5
_BUSY_S = 60.0
"""How long a write waits for a reader (a dashboard, `fer-ray status`) to let go of the file."""


@dataclass
class _Change:
    """What is not yet in the file, of one trial."""

    attributes: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    state: TrialState | None = None
    value: float | None = None


class StudyFile:
    """One study in one file.

    Args:
        path: of the file.
        name: of the study; made when the file has none.
        direction: `maximize` or `minimize`.
    """

    def __init__(self, path: Path, name: str, direction: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.path = path
        self._storage = RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": _BUSY_S}}
        )
        studies = self._storage.get_all_studies()
        self._study = (
            studies[0]._study_id
            if studies
            else self._storage.create_new_study([StudyDirection[direction.upper()]], name)
        )
        self._ids: dict[int, int] = {}
        self._changes: dict[int, _Change] = {}
        self._flushed = time.monotonic()

    @staticmethod
    def peek(path: Path) -> dict[str, Any]:
        """User attributes of the study in a file; empty where no study was made yet."""
        storage = RDBStorage(f"sqlite:///{path}")
        try:
            studies = storage.get_all_studies()
            return storage.get_study_user_attrs(studies[0]._study_id) if studies else {}
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def trials(self) -> list[FrozenTrial]:
        """All trials of the file, by number."""
        trials = self._storage.get_all_trials(self._study)
        self._ids = {trial.number: trial._trial_id for trial in trials}
        return trials

    def attributes(self) -> dict[str, Any]:
        """User attributes of the study."""
        return self._storage.get_study_user_attrs(self._study)

    def note(self, name: str, value: Any) -> None:
        """Write one user attribute of the study."""
        self._storage.set_study_user_attr(self._study, name, value)

    def add(self, trial: FrozenTrial) -> None:
        """Write a new trial with all that it has, in one transaction; it gets the next number."""
        self.flush()
        trial_id = self._storage.create_new_trial(self._study, template_trial=trial)
        number = self._storage.get_trial_number_from_id(trial_id)
        assert number == trial.number, f"trial {trial.number} got the number {number}"
        self._ids[number] = trial_id

    def report(self, number: int, attributes: dict[str, Any], reports: dict[int, float]) -> None:
        """Note attributes and intermediate values of a running trial; they may wait a moment."""
        change = self._changes.setdefault(number, _Change())
        change.attributes.update(attributes)
        change.reports.update(reports)

    def finish(
        self,
        number: int,
        state: TrialState,
        value: float | None,
        attributes: dict[str, Any],
    ) -> None:
        """Write a trial's end, with whatever of it has waited."""
        self.report(number, attributes, {})
        self._changes[number].state = state
        self._changes[number].value = value
        self.flush()

    def flush_if_due(self) -> None:
        """Write what waits if it has waited long enough."""
        if self._changes and time.monotonic() - self._flushed >= _REPORTS_WAIT_S:
            self.flush()

    def flush(self) -> None:
        """Write everything that waits, in one transaction."""
        self._flushed = time.monotonic()
        if not self._changes:
            return
        with _create_scoped_session(self._storage.scoped_session) as session:
            for number, change in self._changes.items():
                self._write(session, self._ids[number], change)
        self._changes.clear()

    def _write(self, session: Any, trial_id: int, change: _Change) -> None:
        storage = self._storage
        for name, value in change.attributes.items():
            storage._set_trial_attr_without_commit(
                session, models.TrialUserAttributeModel, trial_id, name, value
            )
        for step, value in change.reports.items():
            storage._set_trial_intermediate_value_without_commit(session, trial_id, step, value)
        if change.state is None:
            return
        trial = models.TrialModel.find_or_raise_by_id(trial_id, session)
        if change.value is not None:
            storage._set_trial_value_without_commit(session, trial, 0, change.value)
        trial.state = change.state
        trial.datetime_complete = datetime.datetime.now()

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.flush()
        self._storage.remove_session()
        self._storage.engine.dispose()
