"""What a trial does in its worker process: the training engine, reports, checkpoints, a bundle."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune

from fer_ray.bundle.manifest import check_manifest
from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData
from fer_ray.errors import FerRayError
from fer_ray.evaluation.packing import pack
from fer_ray.runs import RunDirectory
from fer_ray.training.loop import Training

_REPORT_EVERY_S = 1.0
_CHECKPOINT_EVERY_S = 15.0


def train_trial(
    config: dict[str, Any],
    *,
    data: TrainingData,
    states: Mapping[str, Any],
    run_path: str,
    rungs: tuple[int, ...],
    deadline: float | None,
    target: float | None,
    num_threads: int,
    data_name: str,
) -> None:
    """One trial, from its first or its last checkpointed epoch to its end.

    Args:
        config: `number` and `config`, as the searcher gives them.
        data: in the object store, shared by all trials of the node, read-only.
        states: pretrained weights by `source/arch`, numpy arrays, likewise.
        run_path: the run's directory, seen by every worker.
        rungs: epochs at which ASHA wants to hear.
        deadline: seconds since the epoch; the trial ends in order after it.
        target: value of the objective at which the trial ends in order.
        num_threads: of torch.
        data_name: for the model card.
    """
    torch.set_num_threads(num_threads)
    # A reused process still holds the last trial's network.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        final = _train(config, data, states, run_path, rungs, deadline, target, data_name)
    except FerRayError as error:
        final = {"rows": [], "ended": "failed", "error": error.message}
    except Exception as error:  # noqa: BLE001
        # A bug or an exhausted device: the trial is over, the search is not.
        trace = traceback.format_exc()
        path = RunDirectory(Path(run_path)).trial(config["number"]) / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(trace, encoding="utf-8")
        final = {"rows": [], "ended": "failed", "error": f"{type(error).__name__}: {error}"[:500]}
    tune.report(final)


def _train(
    trial: dict[str, Any],
    data: TrainingData,
    states: Mapping[str, Any],
    run_path: str,
    rungs: tuple[int, ...],
    deadline: float | None,
    target: float | None,
    data_name: str,
) -> dict[str, Any]:
    """Train to the end; the report of the last epochs is returned, not sent."""
    config = Config.model_validate(trial["config"])
    run = RunDirectory(Path(run_path))
    number = int(trial["number"])
    training = Training(config, data, _state(config, states))
    checkpoint = run.checkpoint(number)
    unsent: list[dict[str, Any]] = []
    if checkpoint.is_file():
        training.resume(checkpoint)
        unsent = list(training.curve)
    reported = saved = time.monotonic()
    ended = "complete"
    for result in training.epochs():
        unsent.append(result.as_dict())
        now = time.monotonic()
        if result.diverged:
            ended = "diverged"
            break
        if result.epoch == config.train.epochs:
            break
        if target is not None and _reaches(config, result.best_objective, target):
            ended = "target"
            break
        if deadline is not None and time.time() >= deadline:
            ended = "time budget"
            break
        if now - saved >= _CHECKPOINT_EVERY_S:
            training.save(checkpoint)
            saved = now
        if result.epoch in rungs or now - reported >= _REPORT_EVERY_S:
            tune.report({"rows": unsent})
            unsent, reported = [], now
    else:
        ended = "early stop"
    bundle_id = None
    if run.bundle(number).exists():
        # Its process died between packing and reporting; bundles are immutable.
        bundle_id, _ = check_manifest(run.bundle(number))
    elif training.best_epoch:
        bundle_id = pack(
            run.bundle(number),
            config=config,
            data=data,
            state=training.best_state(),
            curve=training.curve,
            data_name=data_name,
        )
    return {"rows": unsent, "ended": ended, "bundle_id": bundle_id}


def _reaches(config: Config, value: float, target: float) -> bool:
    return value >= target if config.objective.goal == "maximize" else value <= target


def _state(config: Config, states: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    resnet = config.model.resnet
    if resnet is None or resnet.weights == "none":
        return None
    arrays = states[f"{resnet.weights}/{resnet.arch}"]
    # Copies: the shared arrays are read-only, parameters are not.
    return {name: torch.tensor(value) for name, value in arrays.items()}
