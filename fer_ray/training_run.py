"""`fer-ray train`: one configuration, trained here or on several workers, becomes a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_ray.bundle.manifest import METRICS, check_manifest
from fer_ray.bundle.pretrained import resnet_state
from fer_ray.cluster.storage import check_shared
from fer_ray.config.schema import Config
from fer_ray.config.space import load_config
from fer_ray.data.loading import (
    TrainingData,
    load_training_data,
    load_validation_data,
    must_stream,
    source_name,
    source_of,
)
from fer_ray.errors import FerRayError, InterruptedRunError, UserError
from fer_ray.evaluation.packing import check_packable, pack
from fer_ray.ray_session import ray_session
from fer_ray.runs import RunDirectory, open_run
from fer_ray.store import read_json
from fer_ray.training.checkpoint import CHECKPOINT_EVERY_S
from fer_ray.training.epoch_result import EpochResult
from fer_ray.training.loop import Training


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
    address: str | None,
    on_epoch: Callable[[EpochResult], None],
    say: Callable[[str], None],
) -> TrainReport:
    """Train a resolved config and write its run; see `fer_ray.api.train`.

    Args:
        text: of the file, kept as `space.yaml`.
        num_threads: of torch, shared by the workers.
        address: of a Ray cluster, which then trains, also with one worker.

    Raises:
        DataError: the data are not there.
        UserError: the cluster cannot be joined, or a node does not see `out`; nothing is written.
        FerRayError: the training diverged before its first good epoch.
        InterruptedRunError: by Ctrl-C; `resume_train` goes on.
    """
    run = RunDirectory(out.absolute())
    run.require_absent()
    state = resnet_state(config.model)
    here, data = _load(config, num_workers, address, say)
    check_packable(config, data)
    with _cluster(here, run, address):
        facts = {"config_fingerprint": config.fingerprint(), "workers": num_workers}
        run.create("train", text, data.fingerprint, facts)
        run.write_resolved(0, config)
        job = _Job(config, data, state, run, num_threads, num_workers, on_epoch, say)
        return _train(job, here)


def resume_train(
    path: Path,
    *,
    num_threads: int,
    address: str | None,
    on_epoch: Callable[[EpochResult], None],
    say: Callable[[str], None],
) -> TrainReport:
    """Go on with a run of `train_run` that was interrupted or killed.

    It ends as it would have without the interruption: on a CPU with the same weights, bit by bit.

    Args:
        path: the run.
        num_threads: of torch, shared by as many workers as the run began with.

    Raises:
        UserError: no run of a single training, one that is finished, or its config or data are no
            longer those that it began with.
        FerRayError, InterruptedRunError: see `train_run`.
    """
    run = open_run(path.absolute())
    record = read_json(run.path / "run.json")
    if record.get("verb") != "train":
        raise UserError(f"{path} is a run of `fer-ray {record.get('verb')}`, not of one training")
    if run.best.exists():
        raise UserError(
            f"{path} is finished: its bundle is {run.best}",
            "To train longer, give train.epochs another value and the run another --out.",
        )
    resolved = run.trial(0) / "resolved.yaml"
    config = load_config(resolved)
    if config.fingerprint() != record.get("config_fingerprint"):
        raise UserError(
            f"{resolved} is not the config that the run began with",
            "Put it back, or start another run with `fer-ray train`.",
        )
    num_workers = int(record["workers"])
    here, data = _load(config, num_workers, address, say)
    if data.fingerprint != record["data_fingerprint"]:
        raise UserError(
            f"{config.data.source} has fingerprint {data.fingerprint[:16]}, but the run began with "
            f"{record['data_fingerprint'][:16]}: the data set is another one",
            "Put the data set back, or start another run with `fer-ray train`.",
        )
    # A checkpoint holds all weights; only a start needs those it starts from.
    state = None if run.checkpoint(0).is_file() else resnet_state(config.model)
    with _cluster(here, run, address):
        job = _Job(config, data, state, run, num_threads, num_workers, on_epoch, say)
        return _train(job, here)


@dataclass(frozen=True)
class _Job:
    """A training and its run."""

    config: Config
    data: TrainingData
    state: dict[str, Tensor] | None
    run: RunDirectory
    num_threads: int
    num_workers: int
    on_epoch: Callable[[EpochResult], None]
    say: Callable[[str], None]


@contextlib.contextmanager
def _cluster(here: bool, run: RunDirectory, address: str | None) -> Iterator[None]:
    """Ray for the workers, of which every node sees the run; nothing where there are none."""
    if here:
        yield
        return
    with ray_session(dashboard=True, address=address):
        check_shared(run.path)
        yield


def _load(
    config: Config, num_workers: int, address: str | None, say: Callable[[str], None]
) -> tuple[bool, TrainingData]:
    """Whether this process trains by itself, and the data that it needs."""
    streams, why = must_stream(config.data, source_of(config.data), num_workers)
    say(why)
    here = num_workers == 1 and not streams and address is None
    # With Ray the workers read the training images; this process needs none of them.
    return here, (load_training_data if here else load_validation_data)(config.data)


def _train(job: _Job, here: bool) -> TrainReport:
    """Train to the end, from the run's checkpoint where it has one, and pack the bundle."""
    run = job.run
    try:
        best, curve = (_train_here if here else _train_workers)(job)
    except KeyboardInterrupt as error:
        kept = "its checkpoint is kept" if run.checkpoint(0).is_file() else "no checkpoint yet"
        raise InterruptedRunError(
            f"interrupted, {kept}", f"To go on: fer-ray resume {run.path}"
        ) from error
    if not any(row["best_epoch"] for row in curve):
        raise FerRayError(
            "the training diverged in its first epoch: the loss is not finite",
            "Lower the learning rate, or set train.grad_clip.",
        )
    if run.bundle(0).exists():
        # The process died between packing and pointing; bundles are immutable.
        bundle_id, _ = check_manifest(run.bundle(0))
    else:
        bundle_id = pack(
            run.bundle(0),
            config=job.config,
            data=job.data,
            state=best,
            curve=curve,
            data_name=source_name(job.config.data),
        )
    run.point_best(0)
    run.checkpoint(0).unlink(missing_ok=True)
    metrics = read_json(run.bundle(0) / METRICS)
    return TrainReport(run.path, bundle_id, curve, metrics["validation"])


def _train_here(job: _Job) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train in this process; gives the best weights and the curve."""
    torch.set_num_threads(job.num_threads)
    training = Training(job.config, job.data, job.state, say=job.say)
    checkpoint = job.run.checkpoint(0)
    if checkpoint.is_file():
        training.resume(checkpoint)
        job.say(f"going on after epoch {training.epoch} of {job.config.train.epochs}")
    job.say(
        f"{training.num_steps:,} steps an epoch, {training.micro_batch:,} images at once; "
        f"a checkpoint every {CHECKPOINT_EVERY_S:.0f} s, after an epoch: {checkpoint}"
    )
    saved = time.monotonic()
    for result in training.epochs():
        job.on_epoch(result)
        if training.ended or time.monotonic() - saved >= CHECKPOINT_EVERY_S:
            training.save(checkpoint)
            saved = time.monotonic()
    return training.best_state(), training.curve


def _train_workers(job: _Job) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train on several workers; gives the best weights and the curve."""
    from fer_ray.training.distributed import train_distributed

    checkpoint = job.run.checkpoint(0)
    if checkpoint.is_file():
        _, curve = Training.best_of(checkpoint)
        job.say(f"going on after epoch {len(curve)} of {job.config.train.epochs}")
    train_distributed(
        job.config,
        job.run,
        num_workers=job.num_workers,
        num_threads=max(1, job.num_threads // job.num_workers),
        state=job.state,
        on_epoch=job.on_epoch,
    )
    return Training.best_of(checkpoint)
