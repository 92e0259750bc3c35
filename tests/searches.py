"""A search's run directory, made without training: the curves follow from the configurations.

The study is written as docs/design.md says that a search leaves it, on a simulated clock, with the
real ASHA. Configurations with a high learning rate diverge, one trial fails, one is rejected.
"""

from __future__ import annotations

import datetime
import heapq
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from fer_ray.config.holes import Hole
from fer_ray.config.space import SearchSpace, parse_space, random_value
from fer_ray.runs import RunDirectory
from fer_ray.search.asha import Asha, rungs_of
from fer_ray.store import write_json

STARTED = 1_790_000_000.0
SPACE = """\
version: 1
name: pretended
data: {source: sample, image_size: 24, crop: 20}
model:
  one_of:
    cnn:
      depth: {int: [2, 4], default: 3}
      width: {choice: [32, 16, 64]}
      head: {choice: [[], [64]]}
      head_dropout: {float: [0.0, 0.5], default: 0.3}
    resnet:
      weights: none
      head_dropout: {float: [0.0, 0.5], default: 0.3}
augment: {rotate_deg: {float: [0, 20], default: 10}}
train:
  epochs: 27
  batch_size: {choice: [64, 128]}
  optimizer:
    one_of:
      sgd: {lr: {log: [1.0e-3, 1.0], default: 1.0e-2}, weight_decay: {log: [1.0e-5, 1.0e-3]}}
      adamw: {lr: {log: [1.0e-5, 1.0e-1]}}
  schedule:
    one_of:
      cosine: {warmup_epochs: {int: [0, 2], default: 1}}
      constant: {}
search: {trials: 40, seed: 7}
scheduler: {asha: {grace_epochs: 3, reduction: 3}}
"""


@dataclass
class Pretended:
    """A trial under way on the simulated clock."""

    number: int
    params: dict[str, Any]
    slot: int
    started: float
    curve: list[dict[str, Any]] = field(default_factory=list)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None
    finished: float | None = None


def pretend_search(
    path: Path,
    *,
    trials: int = 40,
    slots: int = 4,
    seed: int = 0,
    until_s: float = math.inf,
    text: str = SPACE,
    with_bundles: bool = False,
    with_failures: bool = True,
) -> RunDirectory:
    """Write a run.

    Args:
        path: the new run directory.
        trials: trained in all.
        slots: trials at once.
        until_s: of the simulated clock, when the driver was killed.
        with_bundles: note one for trial 0 and for the best; the bundles are the caller's to make.
        with_failures: let one trial fail and one sample be rejected.
    """
    space = parse_space(text, "pretended.yaml")
    run = RunDirectory(path)
    run.create("tune", text, "sample")
    document = json.loads((path / "run.json").read_text())
    command = ["fer-ray", "tune", "pretended.yaml", "-s", f"search.trials={trials}"]
    write_json(path / "run.json", {**document, "command": command})
    done = _play(space, trials, slots, random.Random(seed), until_s, with_failures)
    best = max(done, key=lambda t: t.curve[-1]["best_objective"] if t.curve else -1.0).number
    bundles = {0: "a" * 64, best: "b" * 64} if with_bundles else {}
    _write_study(run, space, done, bundles, with_failures)
    running = [trial for trial in done if trial.ended is None]
    for trial in done:
        if trial.number in bundles:
            run.write_resolved(trial.number, space.resolve(trial.params))
    now = min(until_s, max(t.finished or 0.0 for t in done) if not running else until_s) + STARTED
    write_json(
        run.status_json,
        {
            "time": datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat("T", "seconds"),
            "trials_wanted": trials,
            "running": [{"trial": trial.number} for trial in running],
        },
    )
    return run


def _play(
    space: SearchSpace,
    trials: int,
    slots: int,
    generator: random.Random,
    until_s: float,
    with_failures: bool,
) -> list[Pretended]:
    base = space.base
    assert base.scheduler != "none"
    reduction, epochs = base.scheduler.asha.reduction, base.train.epochs
    rungs = rungs_of(base.scheduler.asha.grace_epochs, reduction, epochs)
    asha = Asha(rungs, reduction, exempt=frozenset({0}))
    done: list[Pretended] = []
    values: dict[int, list[float]] = {rung: [] for rung in rungs}
    events: list[tuple[float, int, int]] = []

    def start(at: float, slot: int) -> None:
        number = len(done)
        if number >= trials:
            return
        params = space.complete({})
        if number:
            params = space.draw(lambda hole: random_value(hole, generator))
        done.append(Pretended(number, params, slot, at))
        heapq.heappush(events, (at + 2.0 + _epoch_s(params), number, slot))

    for slot in range(slots):
        start(0.1 * slot, slot)
    while events:
        at, number, slot = heapq.heappop(events)
        if at > until_s:
            continue
        trial = done[number]
        _epoch(trial, at, generator)
        epoch = len(trial.curve)
        if with_failures and number == 5 and epoch == 2:
            trial.ended = "failed"
        elif trial.curve[-1]["diverged"]:
            trial.ended = "diverged"
        elif epoch == epochs:
            trial.ended = "complete"
        else:
            best = trial.curve[-1]["best_objective"]
            decision = asha.decide(number, epoch, best)
            if decision is not None:
                values[epoch].append(best)
                there = sorted(values[epoch], reverse=True)
                threshold = there[max(1, len(there) // reduction) - 1]
                trial.rungs.append(
                    {**vars(decision), "value": best, "threshold": threshold, "time": STARTED + at}
                )
                if decision.stop:
                    trial.ended = "pruned"
        if trial.ended is None:
            heapq.heappush(events, (at + _epoch_s(trial.params), number, slot))
        else:
            trial.finished = at + 0.3
            start(at + 0.5 + 0.4 * generator.random(), slot)
    return done


def _epoch_s(params: dict[str, Any]) -> float:
    return 9.0 if params["model"] == "resnet" else 2.0 + params["model.cnn.width"] / 16


def _epoch(trial: Pretended, at: float, generator: random.Random) -> None:
    """One more row: towards a height that the configuration decides, with noise."""
    params = trial.params
    kind = params["train.optimizer"]
    rate, best_rate = params[f"train.optimizer.{kind}.lr"], 0.08 if kind == "sgd" else 2e-3
    away = math.log10(rate / best_rate)
    height = 0.66 - 0.05 * away * away - 0.04 * (params["model"] == "resnet")
    height -= 0.02 * (params["train.schedule"] == "constant")
    if params["model"] == "cnn":
        height += 0.015 * math.log2(params["model.cnn.width"] / 32)
    epoch = len(trial.curve) + 1
    value = height * (1 - 0.62 * math.exp(-epoch / 4)) + generator.gauss(0, 0.006)
    value = min(max(value, 0.14), 0.99)
    diverged = away > 1.0 and epoch >= 2
    before = trial.curve[-1] if trial.curve else {"best_objective": -1.0, "best_epoch": 0}
    best, best_epoch = before["best_objective"], before["best_epoch"]
    if not diverged and value > best:
        best, best_epoch = value, epoch
    trial.curve.append(
        {
            "epoch": epoch,
            "objective": -1.0 if diverged else value,
            "best_objective": best,
            "best_epoch": best_epoch,
            "diverged": diverged,
            "seconds": _epoch_s(params),
            "time": STARTED + at,
        }
    )


# --- study.db -------------------------------------------------------------------------------------


def _write_study(
    run: RunDirectory,
    space: SearchSpace,
    done: list[Pretended],
    bundles: dict[int, str],
    with_failures: bool,
) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{run.study_db}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=space.base.name, storage=storage, direction=space.base.objective.goal
    )
    asha = space.base.scheduler
    assert asha != "none"
    rungs = rungs_of(asha.asha.grace_epochs, asha.asha.reduction, space.base.train.epochs)
    for name, value in {
        "format": 1,
        "rungs": rungs,
        "reduction": asha.asha.reduction,
        "epochs": space.base.train.epochs,
    }.items():
        study.set_user_attr(name, value)
    holes = {hole.address: hole for hole in space.holes}
    for trial in done:
        study.add_trial(_frozen(trial, holes, bundles.get(trial.number)))
    if with_failures:
        rejected = create_trial(
            state=TrialState.FAIL,
            params={},
            distributions={},
            user_attrs={
                "ended": "31,000,000 parameters, the limit is 30,000,000",
                "rejected": True,
            },
        )
        study.add_trial(rejected)
    storage.engine.dispose()


def _frozen(
    trial: Pretended, holes: dict[str, Hole], bundle: str | None
) -> optuna.trial.FrozenTrial:
    distributions = {address: distribution_of(holes[address]) for address in trial.params}
    params = {
        address: json.dumps(value) if isinstance(value, tuple) else value
        for address, value in trial.params.items()
    }
    attributes: dict[str, Any] = {
        "seed": 100 + trial.number,
        "attempts": [
            {
                "slot": trial.slot,
                "started": STARTED + trial.started,
                "ended": None if trial.finished is None else STARTED + trial.finished,
                "from_epoch": 0,
            }
        ],
        "curve": trial.curve,
        "rungs": trial.rungs,
    }
    state, value = TrialState.RUNNING, None
    if trial.ended is not None and trial.finished is not None:
        state = TrialState.COMPLETE if trial.ended == "complete" else TrialState.PRUNED
        if trial.ended == "failed":
            state = TrialState.FAIL
            attributes["error"] = "RuntimeError: <b>out of memory</b> & more"
        if state == TrialState.COMPLETE:
            value = trial.curve[-1]["best_objective"]
        attributes |= {
            "ended": trial.ended,
            "finished": STARTED + trial.finished,
            "seconds": trial.finished - trial.started,
            "bundle_id": bundle,
        }
    frozen = create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
        intermediate_values={
            row["epoch"]: row["best_objective"] for row in trial.curve if not row["diverged"]
        },
    )
    frozen.datetime_start = _stamp(trial.started)
    if trial.finished is not None and trial.ended is not None:
        frozen.datetime_complete = _stamp(trial.finished)
    return frozen


def _stamp(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(STARTED + at, datetime.UTC).replace(tzinfo=None)


def distribution_of(hole: Hole) -> BaseDistribution:
    """As the study tells Optuna of a hole."""
    if hole.choices:
        return CategoricalDistribution(
            [json.dumps(c) if isinstance(c, tuple) else c for c in hole.choices]
        )
    if hole.kind == "int":
        return IntDistribution(int(hole.low), int(hole.high), step=int(hole.step or 1))
    return FloatDistribution(hole.low, hole.high, log=hole.kind == "log", step=hole.step)
