"""A run as `study.db` tells it: typed, read-only, safe while the search goes on.

The file is opened read-only and read as plain SQLite and JSON: nothing is written, nothing is
unpickled, Optuna is not needed. `status`, the report and the DataFrame look at a run only through
here. What an older run did not record is None, which readers show as "not recorded".
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace, parse_space
from fer_ray.errors import ConfigError, UserError
from fer_ray.runs import RunDirectory, open_run
from fer_ray.store import read_json

_BUSY_S = 20.0
"""How long a read waits for the driver's write to end."""
_STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


@dataclass(frozen=True)
class RungVisit:
    """A trial at a rung.

    Attributes:
        rung: in epochs.
        rank: among those that had reached it, from 1.
        count: how many had, this trial included.
        stop: whether the trial ended here.
        value: its best value so far.
        threshold: what it took to go on: the value of the last that would have, among those that
            had reached the rung by then; None where the reduction is not recorded.
    """

    rung: int
    rank: int
    count: int
    stop: bool
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One process's work on a trial.

    Attributes:
        slot: from 0; None where it is not recorded.
        started: seconds since the epoch.
        ended: likewise; None where it goes on or was killed.
    """

    slot: int | None
    started: float
    ended: float | None


@dataclass(frozen=True)
class TrialHistory:
    """One trial of a study.

    Attributes:
        state: complete, pruned, failed, running, waiting or rejected (never trained: forbidden or
            above the limits).
        ended: the search's own word for how it ended, or why it was rejected.
        params: address -> value of its active holes.
        distributions: address -> Optuna's distribution as JSON text.
        stored: address -> Optuna's number for the value.
        curve: the epochs in order; of a running trial those that were reported, with `epoch` and
            `best_objective` alone where no more is known.
        visits: at the rungs, in order.
        attempts: the processes that worked on it. Where the run did not note them, one, that began
            as long before the trial's end as its epochs took: a trial may be asked for long before.
        is_exact: whether the run noted them.
        finished: when its end was recorded, seconds since the epoch.
        attributes: everything else that the search noted.
    """

    number: int
    state: str
    ended: str | None
    params: dict[str, Any]
    distributions: dict[str, str]
    stored: dict[str, float]
    curve: tuple[dict[str, Any], ...]
    visits: tuple[RungVisit, ...] = ()
    seed: int | None = None
    bundle_id: str | None = None
    error: str | None = None
    seconds: float | None = None
    attempts: tuple[Attempt, ...] = ()
    is_exact: bool = True
    finished: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Epochs trained; 0 before the first report."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def started(self) -> float | None:
        """When its first process began, seconds since the epoch."""
        return self.attempts[0].started if self.attempts else None

    @property
    def best(self) -> float:
        """Best objective; NaN where there is none."""
        finite = [row for row in self.curve if not row.get("diverged")]
        return float(finite[-1]["best_objective"]) if finite else math.nan

    @property
    def has_value(self) -> bool:
        return not math.isnan(self.best)

    @property
    def best_epoch(self) -> int:
        """The epoch of `best`; 0 where there is none."""
        best = self.best
        matching = (r["epoch"] for r in self.curve if r.get("best_objective") == best)
        return int(next(matching, 0))

    def value_at(self, epoch: int) -> float | None:
        """Best objective up to an epoch that it has reached, else None."""
        if epoch > self.epoch:
            return None
        rows = [r for r in self.curve if r["epoch"] <= epoch and not r.get("diverged")]
        return float(rows[-1]["best_objective"]) if rows else None


@dataclass(frozen=True)
class RunHistory:
    """One run.

    Attributes:
        directory: where everything stands.
        document: `run.json`.
        attributes: of the study.
        status: `status.json`, empty before the first.
        maximize: whether more is better.
        trials: by number, the waiting and rejected included.
        space: the search space with the run's own overrides; None for a single training, or where
            this fer-ray cannot read it.
    """

    directory: RunDirectory
    document: dict[str, Any]
    attributes: dict[str, Any]
    status: dict[str, Any]
    maximize: bool
    trials: tuple[TrialHistory, ...]
    space: SearchSpace | None

    @property
    def sign(self) -> float:
        return 1.0 if self.maximize else -1.0

    @cached_property
    def trained(self) -> tuple[TrialHistory, ...]:
        """Trials that were, or are being, trained."""
        return tuple(t for t in self.trials if t.state not in ("waiting", "rejected"))

    @cached_property
    def ranking(self) -> tuple[TrialHistory, ...]:
        """Trials with a value, best first; ties to the earlier one."""
        having = [trial for trial in self.trained if trial.has_value]
        return tuple(sorted(having, key=lambda t: (-self.sign * t.best, t.number)))

    @cached_property
    def winner(self) -> TrialHistory | None:
        """The best trial that left a bundle, else the best so far, else None."""
        with_bundle = [t for t in self.ranking if t.bundle_id is not None]
        return next(iter(with_bundle or self.ranking), None)

    def trial(self, number: int) -> TrialHistory:
        """One trial.

        Raises:
            UserError: there is none of this number.
        """
        found = next((trial for trial in self.trials if trial.number == number), None)
        if found is None:
            numbers = [trial.number for trial in self.trials]
            known = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "it has none"
            raise UserError(f"{self.directory.path} has no trial {number}; {known}")
        return found

    @property
    def base(self) -> Config | None:
        """The config of trial 0; None where the space is not readable."""
        return self.space.base if self.space is not None else None

    @property
    def metric(self) -> str:
        return self.base.objective.metric if self.base else "objective"

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are judged; where not recorded, at which any was."""
        recorded = self.attributes.get("rungs")
        if recorded is not None:
            return tuple(int(rung) for rung in recorded)
        return tuple(sorted({visit.rung for trial in self.trained for visit in trial.visits}))

    @property
    def sessions(self) -> tuple[dict[str, Any], ...]:
        """Each `tune` and `resume`, as the study noted them; none in older runs."""
        return tuple(self.attributes.get("sessions") or ())

    @property
    def wanted(self) -> int | None:
        """Trials that the search is to train; None where it is not recorded."""
        noted = self.sessions[-1].get("trials") if self.sessions else None
        number = self.status.get("trials_wanted", noted)
        return int(number) if number is not None else None

    def ended(self) -> dict[str, int]:
        """How many trials ended how."""
        return dict(Counter(t.ended or t.state for t in self.trained if t.state != "running"))

    def frame(self) -> Any:
        """One row a trained trial as a pandas DataFrame: number, state, value, every hole."""
        import pandas as pd

        addresses = list(dict.fromkeys(a for t in self.trained for a in t.params))
        rows = [
            {
                "number": trial.number,
                "state": trial.state,
                "ended": trial.ended,
                "value": trial.best,
                "best_epoch": trial.best_epoch,
                "epochs": trial.epoch,
                "seconds": trial.seconds,
                "seed": trial.seed,
                "bundle_id": trial.bundle_id,
                "error": trial.error,
                **{address: trial.params.get(address) for address in addresses},
            }
            for trial in self.trained
        ]
        return pd.DataFrame(rows)


def read_run(path: Path) -> RunHistory:
    """Read a run that goes on, has ended or was killed.

    Raises:
        UserError: no run, no search, or a `study.db` that cannot be read.
    """
    run = open_run(path)
    if not run.study_db.is_file():
        raise UserError(
            f"{path} has no study.db: it is not a search",
            "A single training has its figures in best/metrics.json.",
        )
    document = read_json(run.path / "run.json")
    status = read_json(run.status_json) if run.status_json.is_file() else {}
    space = _space(run, document)
    with _connection(run.study_db) as database:
        maximize, attributes, trials = _read_study(database)
    reduction = attributes.get("reduction")
    if reduction is None and space is not None and space.base.scheduler != "none":
        reduction = space.base.scheduler.asha.reduction
    trials = _with_thresholds(trials, reduction, maximize)
    return RunHistory(run, document, attributes, status, maximize, tuple(trials), space)


def _space(run: RunDirectory, document: Mapping[str, Any]) -> SearchSpace | None:
    path = run.path / "space.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        return parse_space(text, str(path), overrides_of(document))
    except (OSError, ConfigError):
        return None


def overrides_of(document: Mapping[str, Any]) -> list[str]:
    """The `-s address=value` of a run, from `run.json`: recorded, or read off its command."""
    recorded = document.get("overrides")
    if isinstance(recorded, list):
        return [str(text) for text in recorded]
    words = [str(word) for word in document.get("command", [])]
    found = []
    for word, following in itertools.pairwise([*words, ""]):
        name, _, joined = word.partition("=")
        if word in ("-s", "--set"):
            found.append(following)
        elif word == "--data":
            found.append(f"data.source={following}")
        elif name == "--set":
            found.append(joined)
        elif name == "--data":
            found.append(f"data.source={joined}")
    return found


# --- study.db -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection; of a file whose writer was killed in mid-write, to a private copy.

    A half-written transaction must be rolled back before anything can be read, which a read-only
    connection may not do; the copy is rolled back in its place.
    """
    with contextlib.ExitStack() as stack:
        try:
            connection = _open(path, "ro")
            stack.callback(connection.close)
            connection.execute("SELECT count(*) FROM trials").fetchone()
        except sqlite3.Error:
            connection = _open_copy(path, stack)
        yield connection


def _open_copy(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fer-ray-")))
    try:
        for suffix in ("", "-journal", "-wal"):
            part = path.with_name(path.name + suffix)
            if part.is_file():
                shutil.copy(part, folder / part.name)
        connection = _open(folder / path.name, "rw")
        stack.callback(connection.close)
        connection.execute("SELECT count(*) FROM trials").fetchone()
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return connection


def _open(path: Path, mode: str) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=_BUSY_S)


def _read_study(
    database: sqlite3.Connection,
) -> tuple[bool, dict[str, Any], list[TrialHistory]]:
    """Direction (more is better), attributes and trials of the file's study.

    All in one transaction: one moment of the search.
    """
    database.execute("BEGIN")
    found = database.execute(
        "SELECT study_id, direction FROM study_directions ORDER BY study_id LIMIT 1"
    ).fetchone()
    study, direction = found or (0, "MAXIMIZE")
    noted = _grouped(database, "SELECT study_id, key, value_json FROM study_user_attributes")
    about = {key: json.loads(text) for key, text in noted.get(study, [])}
    # Before the attributes had a format, Optuna's stamps were local times.
    zone = datetime.UTC if "format" in about else None
    rows = database.execute(
        "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials "
        "WHERE study_id = ? ORDER BY number",
        (study,),
    ).fetchall()
    attributes = _grouped(database, "SELECT trial_id, key, value_json FROM trial_user_attributes")
    params = _grouped(
        database, "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params"
    )
    reports = _grouped(
        database,
        "SELECT trial_id, step, intermediate_value FROM trial_intermediate_values ORDER BY step",
    )
    trials = [
        _trial(
            row[1:],
            {key: json.loads(text) for key, text in attributes.get(row[0], [])},
            params.get(row[0], []),
            reports.get(row[0], []),
            zone,
        )
        for row in rows
    ]
    return direction == "MAXIMIZE", about, trials


def _grouped(database: sqlite3.Connection, query: str) -> dict[int, list[tuple[Any, ...]]]:
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for key, *values in database.execute(query):
        groups.setdefault(key, []).append(tuple(values))
    return groups


def _trial(
    row: tuple[Any, ...],
    noted: dict[str, Any],
    param_rows: list[tuple[Any, ...]],
    reports: list[tuple[Any, ...]],
    zone: datetime.tzinfo | None,
) -> TrialHistory:
    number, state, start, complete = row
    reported = [
        {"epoch": step, "best_objective": value} for step, value in reports if value is not None
    ]
    curve = noted.pop("curve", None) or reported
    name = _STATES.get(state, state.lower())
    if noted.pop("rejected", name == "failed" and "seconds" not in noted and not curve):
        name = "rejected"
    finished = noted.pop("finished", None) or _seconds(complete, zone)
    attempts = tuple(
        Attempt(entry.get("slot"), float(entry["started"]), entry.get("ended"))
        for entry in noted.pop("attempts", None) or ()
    )
    is_exact = bool(attempts)
    asked = _seconds(start, zone)
    if not attempts and asked is not None:
        trained_s = sum(float(row.get("seconds", 0.0)) for row in curve)
        known = finished is not None and trained_s > 0
        began = max(asked, finished - trained_s) if known and finished else asked
        attempts = (Attempt(None, began, finished),)
    return TrialHistory(
        number=number,
        state=name,
        ended=noted.pop("ended", None),
        params={address: _value(value, text) for address, value, text in param_rows},
        distributions={address: text for address, _, text in param_rows},
        stored={address: value for address, value, _ in param_rows},
        curve=tuple(curve),
        visits=tuple(
            RungVisit(
                v["rung"], v["rank"], v["count"], v["stop"], v.get("value"), v.get("threshold")
            )
            for v in noted.pop("rungs", None) or ()
        ),
        seed=noted.pop("seed", None),
        bundle_id=noted.pop("bundle_id", None),
        error=noted.pop("error", None),
        seconds=noted.pop("seconds", None),
        attempts=attempts,
        is_exact=is_exact,
        finished=finished,
        attributes=noted,
    )


def _seconds(text: str | None, zone: datetime.tzinfo | None) -> float | None:
    """Optuna's time stamp as seconds since the epoch; local time where `zone` is None."""
    if text is None:
        return None
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def _value(stored: float, distribution: str) -> Any:
    """A parameter as the search space has it: lists come back from their JSON text."""
    document = json.loads(distribution)
    kind, attributes = document["name"], document["attributes"]
    if kind == "CategoricalDistribution":
        choices = attributes["choices"]
        choice = choices[int(stored)]
        return _from_json(choice) if _is_list(choice) or _all_json(choices) else choice
    return int(stored) if kind == "IntDistribution" else stored


def _is_list(choice: Any) -> bool:
    return isinstance(choice, str) and choice.startswith("[") and choice.endswith("]")


def _all_json(choices: list[Any]) -> bool:
    """Whether the search wrote all choices as JSON text, because Optuna took two for one.

    See `fer_ray.search.sampling.encoded_choices`: read back, some two are equal (false and 0).
    """
    try:
        values = [_from_json(choice) for choice in choices]
    except (TypeError, ValueError):
        return False
    return any(one == other for one, other in itertools.combinations(values, 2))


def _from_json(text: str) -> Any:
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value


def _with_thresholds(
    trials: list[TrialHistory], reduction: int | None, maximize: bool
) -> list[TrialHistory]:
    """Fill in each visit's value and what it took to go on, where the run did not note them.

    A visit's count is its place in the order of arrival at the rung, so those that were there by
    then are the visits with a count up to it.
    """
    arrived: dict[int, dict[int, float]] = {}
    for trial in trials:
        for visit in trial.visits:
            value = trial.value_at(visit.rung)
            if value is not None:
                arrived.setdefault(visit.rung, {})[visit.count] = value

    def complete(visit: RungVisit, trial: TrialHistory) -> RungVisit:
        if visit.threshold is not None:
            return visit
        there = arrived.get(visit.rung, {})
        before = sorted(
            (value for count, value in there.items() if count <= visit.count), reverse=maximize
        )
        threshold = None
        if reduction is not None and len(before) == visit.count:
            threshold = before[max(1, visit.count // reduction) - 1]
        return replace(visit, value=trial.value_at(visit.rung), threshold=threshold)

    return [
        replace(trial, visits=tuple(complete(visit, trial) for visit in trial.visits))
        for trial in trials
    ]
