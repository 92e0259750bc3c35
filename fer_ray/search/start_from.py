"""`search.start_from: runs/old`: what an earlier run found best, put into this space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer_ray.config.holes import Hole
from fer_ray.config.space import SearchSpace, flatten, parse_space
from fer_ray.errors import ConfigError, UserError
from fer_ray.runs import RunDirectory, open_run
from fer_ray.search.sampling import decode, same_point

NUM_TAKEN = 5
"""Of the earlier run's best configurations."""


def points_of_run(space: SearchSpace, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The earlier run's best complete trials as points of a space.

    What fits is taken: a value whose address is searched here and whose value lies in the domain.
    The other holes keep their defaults, and each is named.

    Args:
        space: of the new search.
        path: the earlier run.

    Returns:
        points, best first, none twice; and a line for each thing that was taken or does not fit.

    Raises:
        UserError: no search, or one without a complete trial.
    """
    run = open_run(path)
    if not run.study_db.is_file():
        raise UserError(f"search.start_from: {path} is no search, it has no study.db")
    old = _space_of(run)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run.study_db}")
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if not complete:
        raise UserError(f"search.start_from: {path} has no complete trial")
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    complete.sort(key=lambda trial: (sign * (trial.value or 0.0), trial.number))
    points: list[dict[str, Any]] = []
    lines: list[str] = []
    for trial in complete[:NUM_TAKEN]:
        point, misfits = _mapped(space, _values(old, trial))
        notes = f"; {'; '.join(misfits)}" if misfits else ""
        if any(same_point(point, other) for other in points):
            lines.append(f"start_from: trial {trial.number} of {path} is there already{notes}")
        else:
            points.append(point)
            lines.append(f"start_from: trial {trial.number} of {path}{notes}")
    return points, lines


def _space_of(run: RunDirectory) -> SearchSpace | None:
    """The earlier run's space, for what it did not search; None where it is not readable."""
    try:
        text = (run.path / "space.yaml").read_text(encoding="utf-8")
        overrides = run.document().get("overrides", [])
        return parse_space(text, str(run.path / "space.yaml"), overrides)
    except (OSError, ConfigError):
        return None


def _values(old: SearchSpace | None, trial: FrozenTrial) -> dict[str, Any]:
    """Address -> value of everything that the earlier trial was, fixed values included."""
    if old is None:
        return dict(trial.params)
    holes = {hole.address: hole for hole in old.holes}
    params = {a: decode(holes[a], value) for a, value in trial.params.items() if a in holes}
    return flatten(old.fill(params))


def _mapped(space: SearchSpace, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    misfits = []

    def choose(hole: Hole) -> Any:
        if hole.address not in values:
            misfits.append(f"{hole.address} is not there: {hole.default}")
            return hole.default
        value = values[hole.address]
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(value, int) and not isinstance(value, bool) and hole.kind in ("float", "log"):
            value = float(value)
        if hole.contains(value):
            return value
        misfits.append(f"{hole.address} {value} is outside {hole.describe()}: {hole.default}")
        return hole.default

    return space.draw(choose), misfits
