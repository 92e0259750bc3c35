"""The training loop on several workers: Ray Data deals out the shards, Ray Train runs the ranks.

The loop is `fer_ray.training.loop.Training`, the same as for one process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train import WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue
from torch import Tensor

from fer_ray.config.schema import Config
from fer_ray.data.ray_data import shard_training_data, worker_training_data
from fer_ray.errors import FerRayError, UnfinishedError
from fer_ray.runs import RunDirectory
from fer_ray.store import write_atomic
from fer_ray.training.checkpoint import CHECKPOINT_EVERY_S
from fer_ray.training.epoch_result import EpochResult
from fer_ray.training.group import Group
from fer_ray.training.loop import Training


def train_distributed(
    config: Config,
    run: RunDirectory,
    *,
    num_workers: int,
    num_threads: int,
    state: dict[str, Tensor] | None,
    on_epoch: Callable[[EpochResult], None],
) -> None:
    """Train on `num_workers` ranks; rank 0 leaves the run's checkpoint of trial 0.

    Args:
        config: resolved.
        run: its directory, on storage that every worker sees.
        num_workers: ranks; gloo on CPU, nccl with a GPU each.
        num_threads: of torch in each rank.
        state: pretrained weights of a ResNet's body.
        on_epoch: called after each, from a thread.

    Raises:
        UserError: the data or the batch do not suit so many workers.
        FerRayError: a rank failed; its traceback is in the run.
        UnfinishedError: a rank's process died; the run can be gone on with.
        KeyboardInterrupt: by Ctrl-C.
    """
    use_gpu = config.train.device in ("auto", "cuda") and ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]
    arrays = {name: value.numpy() for name, value in (state or {}).items()}
    with _passing(on_epoch) as epochs:
        run_ranks(
            _train_rank,
            {
                "config": config.training_part(),
                "sharded": shard_training_data(config.data, num_workers),
                "state": ray.put(arrays),
                "run_path": str(run.path),
                "num_threads": num_threads,
                "epochs": epochs,
            },
            Ranks(
                num_workers,
                cpu=1.0,
                gpu=1.0 if use_gpu else 0.0,
                storage=str(run.ray),
                name="train",
            ),
            trace=run.trial(0) / "error.txt",
            remedy=f"To go on: fer-ray resume {run.path}",
        )


@contextlib.contextmanager
def _passing(on_epoch: Callable[[EpochResult], None]) -> Iterator[Queue]:
    """A queue for rank 0 to put each epoch in; at the end of the block all were passed on."""
    queue = Queue(actor_options={"num_cpus": 0})
    over = threading.Event()
    faults: list[Exception] = []

    def pass_on() -> None:
        while True:
            try:
                on_epoch(EpochResult(**queue.get(timeout=0.5)))
            except Empty:
                if over.is_set():
                    return
            except RayError:
                return  # Ctrl-C ends Ray, and the queue with it
            except Exception as error:  # noqa: BLE001 - the caller's own; raised below
                faults.append(error)
                return

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        over.set()
        thread.join()
    if faults:
        raise faults[0]


@dataclass(frozen=True)
class Ranks:
    """The processes of one training, and where Ray Train keeps its own records.

    Attributes:
        count: processes.
        cpu, gpu: of each; nccl with a GPU, else gloo.
        storage: a directory that every node sees.
        name: of Ray's folder there.
    """

    count: int
    cpu: float
    gpu: float
    storage: str
    name: str


def run_ranks(
    work: Callable[[dict[str, Any]], None],
    loop: dict[str, Any],
    ranks: Ranks,
    *,
    trace: Path,
    remedy: str,
) -> None:
    """Do the same work in several processes at once, joined by `torch.distributed`.

    Args:
        work: what each does with `loop`.
        trace: where a rank's traceback is written.
        remedy: how to go on where a rank's process died.

    Raises:
        FerRayError: of a rank; or a rank failed otherwise, its traceback is in `trace`.
        UnfinishedError: a rank's process died.
        KeyboardInterrupt: by Ctrl-C.
    """
    trainer = TorchTrainer(
        work,
        train_loop_config=loop,
        scaling_config=ray.train.ScalingConfig(
            num_workers=ranks.count,
            use_gpu=ranks.gpu > 0,
            resources_per_worker={"CPU": ranks.cpu, **({"GPU": ranks.gpu} if ranks.gpu else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if ranks.gpu else "gloo"),
        run_config=ray.train.RunConfig(storage_path=ranks.storage, name=ranks.name),
    )
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
        write_atomic(trace, str(failure).encode("utf-8"))
        text = f"worker {rank} failed: {type(cause).__name__}: {str(cause)[:300]}"
        if cause is failure:
            raise UnfinishedError(text, remedy) from None
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
        if group.is_main:
            loop["epochs"].put(asdict(result))
        ray.train.report({"epoch": result.epoch, "objective": result.objective})
