"""A search by fer-ray, by the plain Ray recipe, and by Optuna alone: the same space, seed, trials.

    python benchmarks/search.py [--trials 24] [--epochs 9] [--grace 1] [--slots 2] [--out DIR]

- fer-ray: `fer_ray.api.tune`, bundles and report included.
- ray: `tune.Tuner` with stock OptunaSearch and ASHAScheduler, `tune.report` every epoch.
- optuna: processes of `study.optimize` on one SQLite file, SuccessiveHalvingPruner.

All train with fer-ray's engine on the built-in faces, one thread a trial, TPE multivariate with
groups. Each arm runs in a process of its own, and its wall time begins with it.
`busy` is the share of the slots spent in epochs from the first trial's first epoch to the last
one's end, and `freed_s` how long a slot waits between the end of a trial's last epoch and the start
of the next one's first: saving, telling, asking, starting, loading. `wall_s` counts the start as
well. The time to 95 % is to 0.95 of the best value that any arm found; the arms sample
differently, so it is one draw of luck and the others are not. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPACE = """\
version: 1
name: benchmark
data: {source: sample, image_size: 48, crop: 44}
model:
  cnn:
    depth: 3
    width: {choice: [48, 32, 64]}
    convs_per_block: 1
    head_dropout: {float: [0.0, 0.4]}
augment: {rotate_deg: {float: [0, 15]}, erase_p: {float: [0.0, 0.3]}}
train:
  epochs: 9
  batch_size: {choice: [64, 128]}
  ema: 0.98
  device: cpu
  optimizer:
    one_of:
      adamw: {lr: {log: [1.0e-4, 1.0e-2]}}
      sgd: {lr: {log: [1.0e-3, 2.0e-1]}}
  schedule: {cosine: {warmup_epochs: 0}}
search: {seed: 7}
scheduler: {asha: {grace_epochs: 1, reduction: 3}}
resources: {per_trial: {cpu: 1, gpu: 0}}
"""
ARMS = ("fer-ray", "ray", "optuna")


def space_of(arguments: argparse.Namespace) -> Any:
    from fer_ray.config.space import parse_space

    return parse_space(SPACE, "benchmark.yaml", overrides_of(arguments))


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    return [
        f"search.trials={arguments.trials}",
        f"train.epochs={arguments.epochs}",
        f"scheduler.asha.grace_epochs={arguments.grace}",
        f"resources.max_concurrent={arguments.slots}",
    ]


def faces(space: Any) -> Any:
    """The built-in faces, drawn once a process: the engine keeps them."""
    from fer_ray.data.loading import load_training_data

    return load_training_data(space.base.data)


def epochs_of(space: Any, params: dict[str, Any], log: Path) -> Any:
    """Train; each epoch's best value so far, noted in `log` with the time."""
    import torch

    from fer_ray.training.loop import Training

    torch.set_num_threads(1)
    trial = uuid.uuid4().hex
    for result in Training(space.resolve(params), faces(space)).epochs():
        with log.open("a") as file:
            row = {
                "trial": trial,
                "time": time.time(),
                "seconds": result.seconds,
                "best": result.best_objective,
            }
            file.write(json.dumps(row) + "\n")
        yield result.epoch, result.best_objective


def suggest(trial: Any, hole: Any) -> Any:
    if hole.choices:
        return trial.suggest_categorical(hole.address, list(hole.choices))
    if hole.kind == "int":
        return trial.suggest_int(hole.address, int(hole.low), int(hole.high))
    return trial.suggest_float(hole.address, hole.low, hole.high, log=hole.kind == "log")


# --- fer-ray --------------------------------------------------------------------------------------


def run_fer_ray(arguments: argparse.Namespace, folder: Path) -> None:
    from fer_ray import api

    (folder / "space.yaml").write_text(SPACE)
    api.tune(folder / "space.yaml", out=folder / "run", overrides=overrides_of(arguments))
    with (folder / "log.jsonl").open("w") as file:
        for trial in api.open_run(folder / "run").trained:
            for row in trial.curve:
                row = {
                    "trial": trial.number,
                    "time": row.get("time", trial.finished),
                    "seconds": row["seconds"],
                    "best": row["best_objective"],
                }
                file.write(json.dumps(row) + "\n")


# --- plain Ray ------------------------------------------------------------------------------------


class Space:
    """Define-by-run for OptunaSearch: what is suggested becomes the trial's config."""

    def __init__(self, overrides: list[str]) -> None:
        self.overrides = overrides

    def __call__(self, trial: Any) -> dict[str, Any]:
        from fer_ray.config.space import parse_space

        parse_space(SPACE, "benchmark.yaml", self.overrides).draw(functools.partial(suggest, trial))
        return {}


def ray_trial(config: dict[str, Any], arguments: argparse.Namespace, log: str) -> None:
    from ray import tune

    for epoch, best in epochs_of(space_of(arguments), dict(config), Path(log)):
        tune.report({"epoch": epoch, "best": best})


def run_ray(arguments: argparse.Namespace, folder: Path) -> None:
    import ray
    from optuna.samplers import TPESampler
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    space = space_of(arguments).base
    ray.init("local", num_cpus=arguments.slots, include_dashboard=False, log_to_driver=False)
    sampler = TPESampler(multivariate=True, group=True, constant_liar=True, seed=7)
    searcher = OptunaSearch(
        Space(overrides_of(arguments)), metric="best", mode="max", sampler=sampler
    )
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="best",
        mode="max",
        max_t=arguments.epochs,
        grace_period=space.scheduler.asha.grace_epochs,
        reduction_factor=space.scheduler.asha.reduction,
    )
    trainable = tune.with_parameters(ray_trial, arguments=arguments, log=str(folder / "log.jsonl"))
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher, scheduler=scheduler, num_samples=arguments.trials
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), name="ray", verbose=0),
    ).fit()
    ray.shutdown()


# --- Optuna alone ---------------------------------------------------------------------------------


def run_optuna(arguments: argparse.Namespace, folder: Path) -> None:
    import optuna

    # Made once, before two processes would make it at the same time.
    storage = f"sqlite:///{folder / 'optuna.db'}"
    optuna.create_study(study_name="benchmark", storage=storage, direction="maximize")
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(folder)]
    workers = [subprocess.Popen(command) for _ in range(arguments.slots)]
    if any(worker.wait() for worker in workers):
        sys.exit("a worker failed")


def optuna_worker(arguments: argparse.Namespace, folder: Path) -> None:
    import optuna
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    space = space_of(arguments)
    asha = space.base.scheduler.asha
    study = optuna.load_study(
        study_name="benchmark",
        storage=f"sqlite:///{folder / 'optuna.db'}",
        sampler=optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, seed=7 + os.getpid() % 2
        ),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=asha.grace_epochs, reduction_factor=asha.reduction
        ),
    )

    def objective(trial: Any) -> float:
        best = 0.0
        params = space.draw(functools.partial(suggest, trial))
        for epoch, best in epochs_of(space, params, folder / "log.jsonl"):
            trial.report(best, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    study.optimize(objective, callbacks=[MaxTrialsCallback(arguments.trials, states=states)])


# --- all ------------------------------------------------------------------------------------------


def measure(arm: str, folder: Path) -> dict[str, Any]:
    """One arm in a new process."""
    folder.mkdir()
    command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, "--folder", str(folder)]
    started = time.time()
    with (folder / "output.txt").open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    ended = time.time()
    if done.returncode:
        sys.exit(f"{arm} failed:\n{(folder / 'output.txt').read_text()[-2000:]}")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {"started": started, "wall_s": ended - started, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--grace", type=int, default=1, help="as --epochs: nothing is stopped")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--out", type=Path, help="keep here what the arms write")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    warnings.simplefilter("ignore")
    if arguments.worker:
        optuna_worker(arguments, arguments.worker)
        return
    if arguments.arm:
        run = {"fer-ray": run_fer_ray, "ray": run_ray, "optuna": run_optuna}[arguments.arm]
        run(arguments, arguments.folder)
        return
    with contextlib.ExitStack() as stack:
        place = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        found = {arm: measure(arm, place / arm) for arm in arguments.arms.split(",")}
    compare(found, arguments)


def trials_in(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Start of the first and end of the last epoch of each trial, by start; seconds."""
    of_trial: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        of_trial.setdefault(row["trial"], []).append(row)
    return sorted(
        (min(row["time"] - row["seconds"] for row in own), max(row["time"] for row in own))
        for own in of_trial.values()
    )


def freed(trials: list[tuple[float, float]], slots: int) -> Iterator[float]:
    """How long the slot that had been free longest waited for each trial but the first ones."""
    free: list[float] = []
    for start, end in trials:
        if len(free) == slots:
            yield start - heapq.heappop(free)
        heapq.heappush(free, end)


def compare(found: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    target = 0.95 * max(row["best"] for arm in found.values() for row in arm["rows"])
    result: dict[str, Any] = {
        "trials": arguments.trials,
        "epochs": arguments.epochs,
        "slots": arguments.slots,
    }
    for arm, one in found.items():
        rows = one["rows"]
        times = [row["time"] - one["started"] for row in rows if row["best"] >= target]
        trials = trials_in(rows)
        span_s = max(end for _, end in trials) - min(start for start, _ in trials)
        trained_s = sum(row["seconds"] for row in rows)
        waits = sorted(freed(trials, arguments.slots))
        result[arm] = {
            "wall_s": round(one["wall_s"], 1),
            "to_95_s": round(min(times), 1) if times else None,
            "best": round(max(row["best"] for row in rows), 4),
            "epochs": len(rows),
            "trial_s": round(trained_s / len(trials), 1),
            "busy": round(trained_s / (arguments.slots * span_s), 3),
            "freed_s": {
                "median": round(statistics.median(waits), 2),
                "p90": round(waits[int(0.9 * len(waits))], 2),
                "worst": round(waits[-1], 2),
            },
            "first_epoch_s": round(min(start for start, _ in trials) - one["started"], 1),
        }
        print(f"{arm:<8} {result[arm]}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
