"""Read a run from its `study.db`: typed, read-only, safe while the search goes on.

The file is opened read-only and read as plain SQLite and JSON: nothing is written, nothing is
unpickled, Optuna is not needed.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_ray.config.space import SearchSpace, parse_space
from fer_ray.errors import ConfigError, UserError
from fer_ray.runs import RunDirectory, open_run
from fer_ray.search.history import Attempt, RungVisit, RunHistory, TrialHistory
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
