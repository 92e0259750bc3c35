"""The training loop on several workers: Ray Data deals out the shards, Ray Train runs the ranks.

The loop is `fer_ray.training.loop.Training`, the same as for one process.
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from fer_ray.config.schema import Config
from fer_ray.data.ray_data import shard_training_data, worker_training_data
from fer_ray.errors import FerRayError, UnfinishedError
from fer_ray.runs import RunDirectory
from fer_ray.store import write_atomic
from fer_ray.training.checkpoint import CHECKPOINT_EVERY_S
from fer_ray.training.group import Group
from fer_ray.training.loop import Training


def train_distributed(
    config: Config,
    run: RunDirectory,
    *,
    num_workers: int,
    num_threads: int,
    state: dict[str, Tensor] | None,
) -> None:
    """Train on `num_workers` ranks; rank 0 leaves the run's checkpoint of trial 0.

    Args:
        config: resolved.
        run: its directory, on storage that every worker sees.
        num_workers: ranks; gloo on CPU, nccl with a GPU each.
        num_threads: of torch in each rank.
        state: pretrained weights of a ResNet's body.

    Raises:
        UserError: the data or the batch do not suit so many workers.
        FerRayError: a rank failed; its traceback is in the run.
        UnfinishedError: a rank's process died; the run can be gone on with.
        KeyboardInterrupt: by Ctrl-C.
    """
    use_gpu = config.train.device in ("auto", "cuda") and ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]
    arrays = {name: value.numpy() for name, value in (state or {}).items()}
    trainer = TorchTrainer(
        _train_rank,
        train_loop_config={
            "config": config.training_part(),
            "sharded": shard_training_data(config.data, num_workers),
            "state": ray.put(arrays),
            "run_path": str(run.path),
            "num_threads": num_threads,
        },
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=ray.train.RunConfig(storage_path=str(run.ray), name="train"),
    )
    _fit(trainer, run)


def _fit(trainer: TorchTrainer, run: RunDirectory) -> None:
    """Run the ranks to their end; what ended them early comes out as an error of ours."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit as stop:
        raise KeyboardInterrupt from stop  # Ray handles Ctrl-C itself, and exits with 0
    except WorkerGroupError as error:
        rank, failure = next(iter(error.worker_failures.items()))
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, FerRayError):
            raise cause from None
        trace = run.trial(0) / "error.txt"
        write_atomic(trace, str(failure).encode("utf-8"))
        text = f"worker {rank} failed: {type(cause).__name__}: {str(cause)[:300]}"
        if cause is failure:
            raise UnfinishedError(text, f"To go on: fer-ray resume {run.path}") from None
        raise FerRayError(text, f"Its traceback is in {trace}.") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _train_rank(loop: dict[str, Any]) -> None:
    """What each rank does."""
    torch.set_num_threads(loop["num_threads"])
    context = ray.train.get_context()
    group = Group(context.get_world_rank(), context.get_world_size())
    config = Config.model_validate(loop["config"])
    run = RunDirectory(Path(loop["run_path"]))
    arrays = ray.get(loop["state"])
    state = {name: torch.tensor(value) for name, value in arrays.items()} or None
    data = worker_training_data(loop["sharded"], group.rank)
    training = Training(config, data, state, group)
    checkpoint = run.checkpoint(0)
    if checkpoint.is_file():
        training.resume(checkpoint)
    saved = time.monotonic()
    for result in training.epochs():
        if group.is_main and (training.ended or time.monotonic() - saved >= CHECKPOINT_EVERY_S):
            training.save(checkpoint)
            saved = time.monotonic()
        ray.train.report({"epoch": result.epoch, "objective": result.objective})
