"""`fer-ray tune`: the study, the data and the trials brought together under Ray Tune."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from fer_ray.config.space import SearchSpace
from fer_ray.data.loading import source_name, source_of
from fer_ray.errors import InterruptedRunError, NothingSucceededError, UserError
from fer_ray.ray_session import ray_session
from fer_ray.runs import RunDirectory
from fer_ray.search.progress import Progress
from fer_ray.search.results import (
    RunSummary,
    drop_checkpoint,
    summary_of,
    update_best,
    write_status,
    write_trials,
)
from fer_ray.search.study import LiveTrial, Study, rejection

_MAX_FAILURES = 2
"""Times that a trial whose process died is started again, from its checkpoint."""


def run_tuning(space: SearchSpace, out: Path, *, live: bool) -> RunSummary:
    """Run a search to its end.

    Args:
        space: checked.
        out: the new run directory.
        live: print progress to stderr.

    Raises:
        UserError: data or weights are missing, or the defaults break `limits`; nothing is
            written then.
        NothingSucceededError: no trial finished an epoch.
        InterruptedRunError: by Ctrl-C; what has ended is kept.
    """
    prepared = source_of(space.base.data)
    why = rejection(space, space.complete({}))
    if why is not None:
        raise UserError(
            f"trial 0, the space's defaults, would not be trained: {why}",
            "Give the holes other defaults, or widen `limits`.",
        )
    states = _pretrained_states(space)
    run = RunDirectory(out.absolute())
    run.create("tune", space.text, prepared.fingerprint if prepared else "sample")
    started = time.time()
    study = Study(run, space)
    progress = Progress(study, live=live)
    try:
        with ray_session():
            _fit(study, states, progress)
    finally:
        progress.close()
        write_trials(study)
        write_status(study)
    update_best(study)
    summary = summary_of(study, time.time() - started)
    interrupted = [t.number for t in study.trials.values() if t.ended is None]
    if interrupted:
        best = f"the best so far is {run.best}" if summary else "no trial left a bundle yet"
        raise InterruptedRunError(f"interrupted with trials {interrupted} unfinished; {best}")
    if summary is None:
        raise NothingSucceededError(
            f"none of {len(study.trials)} trials succeeded: "
            f"{next((t.error for t in study.trials.values() if t.error), 'no reason given')}",
            f"See {run.path / 'trials'} for the errors.",
        )
    return summary


def _pretrained_states(space: SearchSpace) -> dict[str, dict[str, Any]]:
    """Weights of every ResNet that the space can sample, fetched before anything starts."""
    from fer_ray.bundle.pretrained import pretrained_state

    domain: dict[str, tuple[Any, ...]] = {"weights": (), "arch": ()}
    for hole in space.holes:
        for name in domain:
            if hole.address == f"model.resnet.{name}":
                domain[name] = hole.choices
    resnet = _any_resnet(space)
    if resnet is None:
        return {}
    weights = domain["weights"] or (resnet.weights,)
    archs = domain["arch"] or (resnet.arch,)
    states = {}
    for source, arch in itertools.product(weights, archs):
        state = pretrained_state(str(source), str(arch))
        if state is not None:
            states[f"{source}/{arch}"] = {name: t.numpy() for name, t in state.items()}
    return states


def _any_resnet(space: SearchSpace) -> Any:
    """The ResNet branch at its defaults; None where the space has none."""
    branches = next((h.choices for h in space.holes if h.address == "model"), None)
    if branches is None:
        return space.base.model.resnet
    return space.resolve({"model": "resnet"}).model.resnet if "resnet" in branches else None


def _fit(study: Study, states: dict[str, dict[str, Any]], progress: Progress) -> None:
    """Run the trials under Ray Tune."""
    import ray
    from ray import tune

    from fer_ray.data.ray_data import put_training_data
    from fer_ray.search.ray_adapters import StudyBridge, StudyScheduler, StudySearcher
    from fer_ray.search.trainable import train_trial

    base = study.space.base
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    resources, concurrent = _resources(base.resources, cluster)

    def on_change(trial: LiveTrial) -> None:
        progress.on_change(trial)
        if trial.ended is not None:
            drop_checkpoint(study.run, trial)
            update_best(study)
            write_trials(study)
        write_status(study)

    bridge = StudyBridge(study, on_change)
    trainable = tune.with_parameters(
        train_trial,
        data=put_training_data(base.data, progress.say),
        states=ray.put(states),
        run_path=str(study.run.path),
        rungs=study.asha.rungs,
        deadline=bridge.deadline,
        target=base.stop.target,
        num_threads=max(1, int(resources["cpu"])),
        data_name=source_name(base.data),
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(bridge),
            scheduler=StudyScheduler(bridge),
            num_samples=study.num_trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(study.run.ray),
            name="tune",
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    tuner.fit()


def _resources(wanted: Any, cluster: dict[str, float]) -> tuple[dict[str, float], int | None]:
    """What one trial takes, and how many run at once.

    `auto` gives each trial one core: side by side, one-thread trainings do more than one training
    with all threads (measured: 1.5 times on two cores).

    Raises:
        UserError: the cluster can never run one trial.
    """
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    per_trial = wanted.per_trial
    gpu = (1.0 if gpus else 0.0) if per_trial.gpu == "auto" else float(per_trial.gpu)
    cpu = 1.0 if per_trial.cpu == "auto" else float(per_trial.cpu)
    if cpu > cpus or gpu > gpus:
        raise UserError(
            f"a trial wants {cpu:g} CPUs and {gpu:g} GPUs, but Ray has {cpus:g} and {gpus:g}",
            "Lower resources.per_trial, or join a larger cluster.",
        )
    concurrent = None if wanted.max_concurrent == "auto" else int(wanted.max_concurrent)
    return {"cpu": cpu, "gpu": gpu}, concurrent
