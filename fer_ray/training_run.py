"""`fer-ray train`: one configuration, trained here or on several workers, becomes a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_ray.bundle.manifest import METRICS
from fer_ray.config.schema import Config
from fer_ray.data.loading import (
    TrainingData,
    load_training_data,
    load_validation_data,
    must_stream,
    source_name,
    source_of,
)
from fer_ray.errors import FerRayError
from fer_ray.evaluation.packing import pack
from fer_ray.models.weights import resnet_state
from fer_ray.ray_session import ray_session
from fer_ray.runs import RunDirectory
from fer_ray.store import read_json
from fer_ray.training.loop import EpochResult, Training


@dataclass(frozen=True)
class TrainReport:
    """What a single training made.

    Attributes:
        path: the run.
        bundle_id: of its bundle, at `path`/best.
        curve: the epochs.
        validation: the bundle's figures, in fp32.
    """

    path: Path
    bundle_id: str
    curve: list[dict[str, Any]]
    validation: dict[str, Any]


def train_run(
    config: Config,
    text: str,
    out: Path,
    *,
    num_threads: int,
    num_workers: int,
    on_epoch: Callable[[EpochResult], None],
    say: Callable[[str], None],
) -> TrainReport:
    """Train a resolved config and write its run; see `fer_ray.api.train`.

    Args:
        text: of the file, kept as `space.yaml`.
        num_threads: of torch, shared by the workers.

    Raises:
        DataError: the data are not there.
        FerRayError: the training diverged before its first good epoch.
    """
    state = resnet_state(config.model)
    streams, why = must_stream(config.data, source_of(config.data), num_workers)
    say(why)
    here = num_workers == 1 and not streams
    # With Ray the workers read the training images; this process needs none of them.
    training_data = (load_training_data if here else load_validation_data)(config.data)
    run = RunDirectory(out.absolute())
    run.create("train", text, training_data.fingerprint)
    run.write_resolved(0, config)
    if here:
        best, curve = _train_here(config, training_data, state, run, num_threads, on_epoch)
    else:
        best, curve = _train_workers(config, state, run, num_workers, num_threads, on_epoch)
    if not any(row["best_epoch"] for row in curve):
        raise FerRayError(
            "the training diverged in its first epoch: the loss is not finite",
            "Lower the learning rate, or set train.grad_clip.",
        )
    bundle_id = pack(
        run.bundle(0),
        config=config,
        data=training_data,
        state=best,
        curve=curve,
        data_name=source_name(config.data),
    )
    run.point_best(0)
    metrics = read_json(run.bundle(0) / METRICS)
    return TrainReport(run.path, bundle_id, curve, metrics["validation"])


def _train_here(
    config: Config,
    data: TrainingData,
    state: dict[str, Tensor] | None,
    run: RunDirectory,
    num_threads: int,
    on_epoch: Callable[[EpochResult], None],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train in this process; gives the best weights and the curve."""
    torch.set_num_threads(num_threads)
    training = Training(config, data, state)
    for result in training.epochs():
        on_epoch(result)
        training.save(run.checkpoint(0))
    return training.best_state(), training.curve


def _train_workers(
    config: Config,
    state: dict[str, Tensor] | None,
    run: RunDirectory,
    num_workers: int,
    num_threads: int,
    on_epoch: Callable[[EpochResult], None],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train on several workers; gives the best weights and the curve."""
    with ray_session(dashboard=True):
        from fer_ray.training.distributed import train_distributed

        threads = max(1, num_threads // num_workers)
        train_distributed(
            config,
            run,
            num_workers=num_workers,
            num_threads=threads,
            state=state,
        )
    best, curve = Training.best_of(run.checkpoint(0))
    for row in curve:
        on_epoch(EpochResult(**row))
    return best, curve
