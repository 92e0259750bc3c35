"""What a trial does in its worker process: the training engine, reports, checkpoints, a bundle."""

from __future__ import annotations

import errno
import gc
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from fer_ray.bundle.manifest import check_manifest
from fer_ray.config.reads import Reads
from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData
from fer_ray.errors import FerRayError, OutputExistsError
from fer_ray.evaluation.packing import check_packable, pack
from fer_ray.search.run_files import RunFiles, run_files
from fer_ray.store import write_atomic
from fer_ray.training.loop import Training

_REPORT_EVERY_S = 1.0
CHECKPOINT_EVERY_S = 15.0
_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""Full, over quota, read-only, broken: the storage's fault, not the configuration's."""


@dataclass(frozen=True)
class TrialSetting:
    """What all trials of a search share.

    Attributes:
        run_path: the run's directory, seen by every worker; or its address in object storage.
        rungs: epochs at which ASHA wants to hear.
        deadline: seconds since the epoch; the trial ends in order after it.
        target: value of the objective at which the trial ends in order.
        num_threads: of torch, in each process.
        data_name: for the model card.
    """

    run_path: str
    rungs: tuple[int, ...]
    deadline: float | None
    target: float | None
    num_threads: int
    data_name: str


@dataclass(frozen=True)
class AloneSearch:
    """What the trials of a search share where each is one process.

    Attributes:
        data: reference to a `TrainingData`.
        states: reference to the pretrained weights by `source/arch`, numpy arrays.
    """

    data: Any
    states: Any
    setting: TrialSetting

    def trainable(self) -> Callable[..., None]:
        """For Tune."""
        shared = {"data": self.data, "states": self.states, "setting": self.setting}
        trainable: Callable[..., None] = tune.with_parameters(train_trial, **shared)
        return trainable


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
        final = failure_of(int(config["number"]), setting, error)
    tune.report(final)


def failure_of(number: int, setting: TrialSetting, error: Exception) -> dict[str, Any]:
    """The report of a bug or an exhausted machine: the first ends the trial, the second waits.

    A trial whose storage is full has done nothing wrong. It stays as its last checkpoint has it,
    and the search ends in order, to be resumed where there is room.
    """
    if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
        return {"rows": [], "ended": "stopped", "fatal": f"trial {number}: {error}"}
    with run_files(setting.run_path) as files:
        trace = files.run.trial(number) / "error.txt"
        write_atomic(trace, "".join(traceback.format_exception(error)).encode("utf-8"))
        files.copy_out(trace)
    return {"rows": [], "ended": "failed", "error": f"{type(error).__name__}: {error}"[:500]}


def _train(
    trial: dict[str, Any],
    data: TrainingData,
    states: Mapping[str, Any],
    setting: TrialSetting,
) -> dict[str, Any]:
    """Train to the end; the report of the last epochs is returned, not sent."""
    config = Config.model_validate(trial["config"])
    check_packable(config, data)
    reads = Reads(config)
    training = Training(reads.config, data, pretrained_of(reads.config, states))
    return train_to_end(training, trial, reads, data, setting, tune.report)


def train_to_end(
    training: Training,
    trial: Mapping[str, Any],
    reads: Reads,
    data: TrainingData,
    setting: TrialSetting,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train from the trial's last checkpoint, or its start, to its end.

    Several processes call this at once, each with its rank of the training. Rank 0 alone writes and
    reports; and it alone looks at the clock and at the run, so that all end after the same epoch.

    Args:
        training: of this process.
        trial: its `number`, and its `params` where they are to be compared with what was read.
        reads: of the training's config, since before it was built.
        data: for the bundle; its training images are not looked at.
        setting: of the search.
        report: takes the epochs at a rung, or once a second.

    Returns:
        the report of the last epochs and the end, not yet sent; of no use on other ranks.

    Raises:
        UserError: a searched value that nothing read; told after the first epoch.
    """
    with run_files(setting.run_path) as files:
        return _train_with(training, trial, reads, data, setting, report, files)


def _train_with(
    training: Training,
    trial: Mapping[str, Any],
    reads: Reads,
    data: TrainingData,
    setting: TrialSetting,
    report: Callable[[dict[str, Any]], None],
    files: RunFiles,
) -> dict[str, Any]:
    number = int(trial["number"])
    group = training.group
    checkpoint = files.run.checkpoint(number)

    def save() -> None:
        training.save(checkpoint)
        files.copy_out(checkpoint)

    if files.copy_in(checkpoint):
        training.resume(checkpoint)
    unsent = list(training.curve)
    reported = saved = time.monotonic()
    ended = _end_of(training, setting)
    if not group.main_says(ended is not None):
        for result in training.epochs():
            reads.require(trial.get("params", {}))
            reads.close()
            training.curve[-1]["time"] = round(time.time(), 3)
            unsent.append(training.curve[-1])
            now = time.monotonic()
            ended = _end_of(training, setting)
            if group.main_says(ended is not None or files.is_stop_asked):
                break
            if not group.is_main:
                continue
            if now - saved >= CHECKPOINT_EVERY_S:
                save()
                saved = now
            if result.epoch in setting.rungs or now - reported >= _REPORT_EVERY_S:
                report({"rows": unsent})
                unsent, reported = [], now
        if group.is_main and (ended is None or time.monotonic() - saved >= _REPORT_EVERY_S):
            # Packing takes a while; a process that dies in it must not train again.
            save()
    if not group.is_main or ended is None:
        return {"rows": unsent, "ended": "stopped"}
    bundle_id = _bundle(files, number, data, training, setting) if training.best_epoch else None
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
    files: RunFiles,
    number: int,
    data: TrainingData,
    training: Training,
    setting: TrialSetting,
) -> str:
    """Pack the best epoch; gives the bundle's id."""
    path = files.run.bundle(number)
    if not files.copy_in(path):
        try:
            pack(
                path,
                config=training.config,
                data=data,
                state=training.best_state(),
                curve=training.curve,
                data_name=setting.data_name,
            )
        except (OutputExistsError, OSError):
            # A process of the same trial that outlived its driver for a moment was faster.
            if not path.exists():
                raise
        files.copy_out(path)
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
