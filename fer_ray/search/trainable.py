"""What a trial does in its worker process: the training engine, reports, checkpoints, a bundle."""

from __future__ import annotations

import errno
import gc
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from fer_ray.bundle.manifest import check_manifest
from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData
from fer_ray.errors import FerRayError, OutputExistsError
from fer_ray.evaluation.packing import pack
from fer_ray.runs import RunDirectory
from fer_ray.search.stopping import StopWatch
from fer_ray.training.loop import Training

_REPORT_EVERY_S = 1.0
CHECKPOINT_EVERY_S = 15.0
_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""Full, over quota, read-only, broken: the storage's fault, not the configuration's."""


@dataclass(frozen=True)
class TrialSetting:
    """What all trials of a search share.

    Attributes:
        run_path: the run's directory, seen by every worker.
        rungs: epochs at which ASHA wants to hear.
        deadline: seconds since the epoch; the trial ends in order after it.
        target: value of the objective at which the trial ends in order.
        num_threads: of torch.
        data_name: for the model card.
    """

    run_path: str
    rungs: tuple[int, ...]
    deadline: float | None
    target: float | None
    num_threads: int
    data_name: str


def train_trial(
    config: dict[str, Any],
    *,
    data: TrainingData,
    states: Mapping[str, Any],
    setting: TrialSetting,
) -> None:
    """One trial, from its first or its last checkpointed epoch to its end.

    Args:
        config: `number` and `config`, as the searcher gives them.
        data: in the object store, shared by all trials of the node, read-only.
        states: pretrained weights by `source/arch`, numpy arrays, likewise.
        setting: of the search.
    """
    torch.set_num_threads(setting.num_threads)
    # A reused process still holds the last trial's network.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        final = _train(config, data, states, setting)
    except FerRayError as error:
        final = {"rows": [], "ended": "failed", "error": error.message}
    except Exception as error:  # noqa: BLE001
        final = _failure(config, setting, error)
    tune.report(final)


def _failure(config: dict[str, Any], setting: TrialSetting, error: Exception) -> dict[str, Any]:
    """The report of a bug or an exhausted machine: the first ends the trial, the second waits.

    A trial whose storage is full has done nothing wrong. It stays as its last checkpoint has it,
    and the search ends in order, to be resumed where there is room.
    """
    if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
        return {"rows": [], "ended": "stopped", "fatal": f"trial {config['number']}: {error}"}
    path = RunDirectory(Path(setting.run_path)).trial(config["number"]) / "error.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return {"rows": [], "ended": "failed", "error": f"{type(error).__name__}: {error}"[:500]}


def _train(
    trial: dict[str, Any],
    data: TrainingData,
    states: Mapping[str, Any],
    setting: TrialSetting,
) -> dict[str, Any]:
    """Train to the end; the report of the last epochs is returned, not sent."""
    config = Config.model_validate(trial["config"])
    run = RunDirectory(Path(setting.run_path))
    number = int(trial["number"])
    training = Training(config, data, pretrained_of(config, states))
    checkpoint = run.checkpoint(number)
    if checkpoint.is_file():
        training.resume(checkpoint)
    unsent = list(training.curve)
    stop = StopWatch(run)
    reported = saved = time.monotonic()
    ended = _end_of(training, setting)
    if ended is None:
        for result in training.epochs():
            training.curve[-1]["time"] = round(time.time(), 3)
            unsent.append(training.curve[-1])
            now = time.monotonic()
            ended = _end_of(training, setting)
            if ended is not None or stop.is_asked:
                break
            if now - saved >= CHECKPOINT_EVERY_S:
                training.save(checkpoint)
                saved = now
            if result.epoch in setting.rungs or now - reported >= _REPORT_EVERY_S:
                tune.report({"rows": unsent})
                unsent, reported = [], now
        if ended is None or time.monotonic() - saved >= _REPORT_EVERY_S:
            # Packing takes a while; a process that dies in it must not train again.
            training.save(checkpoint)
    if ended is None:
        return {"rows": unsent, "ended": "stopped"}
    bundle_id = (
        _bundle(run, number, config, data, training, setting) if training.best_epoch else None
    )
    return {"rows": unsent, "ended": ended, "bundle_id": bundle_id}


def _end_of(training: Training, setting: TrialSetting) -> str | None:
    """Why a training ends after its last epoch; None while it goes on.

    Asked of the curve, so a training resumed from its very last checkpoint says the same.
    """
    config = training.config
    if not training.curve:
        return None
    last = training.curve[-1]
    patience = config.train.early_stop
    if last["diverged"]:
        return "diverged"
    if training.epoch >= config.train.epochs:
        return "complete"
    if patience and training.epoch - training.best_epoch >= patience:
        return "early stop"
    if setting.target is not None and _reaches(config, training.best_objective, setting.target):
        return "target"
    if setting.deadline is not None and time.time() >= setting.deadline:
        return "time budget"
    return None


def _bundle(
    run: RunDirectory,
    number: int,
    config: Config,
    data: TrainingData,
    training: Training,
    setting: TrialSetting,
) -> str:
    """Pack the best epoch; gives the bundle's id."""
    path = run.bundle(number)
    if not path.exists():
        try:
            return pack(
                path,
                config=config,
                data=data,
                state=training.best_state(),
                curve=training.curve,
                data_name=setting.data_name,
            )
        except (OutputExistsError, OSError):
            # A process of the same trial that outlived its driver for a moment was faster.
            if not path.exists():
                raise
    # Its process died between packing and reporting; bundles are immutable.
    bundle_id, _ = check_manifest(path)
    return bundle_id


def _reaches(config: Config, value: float, target: float) -> bool:
    return value >= target if config.objective.goal == "maximize" else value <= target


def pretrained_of(config: Config, states: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    """A config's pretrained weights, of those that all trials share."""
    resnet = config.model.resnet
    if resnet is None or resnet.weights == "none":
        return None
    arrays = states[f"{resnet.weights}/{resnet.arch}"]
    # Copies: the shared arrays are read-only, parameters are not.
    return {name: torch.tensor(value) for name, value in arrays.items()}
