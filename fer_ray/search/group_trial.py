"""A trial that several processes train together: Ray Train's workers under Ray Tune.

The trial's own process trains nothing. It starts the workers, as `fer-ray train --workers` does,
and passes rank 0's reports on to Tune. Rank 0 waits until Tune has taken a report in, so that a
trial that ASHA stops trains no further epoch; its workers end with the trial's process, and Ray's
cleaner, which needs the dashboard, frees their places.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.train
import torch
from ray import tune

from fer_ray.config.reads import Reads
from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData
from fer_ray.data.ray_data import ShardedTraining, worker_training_data
from fer_ray.errors import FerRayError, UnfinishedError
from fer_ray.evaluation.packing import check_packable
from fer_ray.search.run_files import run_files
from fer_ray.search.trainable import TrialSetting, failure_of, pretrained_of, train_to_end
from fer_ray.training.distributed import Ranks, run_ranks
from fer_ray.training.group import Group
from fer_ray.training.loop import Training

_LOOK_EVERY_S = 0.5


class _Reports:
    """Stands between rank 0 and the trial, an actor: a report is over when it was taken in."""

    def __init__(self) -> None:
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._taken: asyncio.Queue[bool] = asyncio.Queue()

    async def send(self, report: dict[str, Any]) -> None:
        await self._sent.put(report)
        await self._taken.get()

    async def receive(self, timeout_s: float) -> dict[str, Any] | None:
        try:
            return await asyncio.wait_for(self._sent.get(), timeout_s)
        except TimeoutError:
            return None

    async def taken(self) -> None:
        await self._taken.put(True)


@dataclass(frozen=True)
class GroupSearch:
    """What the groups of a search share.

    Attributes:
        sharded: the data, dealt out.
        states: reference to the pretrained weights by `source/arch`, numpy arrays.
        setting: as for trials of one process.
        ranks: the workers; each trial adds its own name to theirs.
    """

    sharded: ShardedTraining
    states: Any
    setting: TrialSetting
    ranks: Ranks

    def trainable(self) -> Callable[..., None]:
        """For Tune."""
        trainable: Callable[..., None] = tune.with_parameters(train_group_trial, group=self)
        return trainable

    def run(
        self,
        work: Callable[[dict[str, Any]], None],
        loop: dict[str, Any],
        name: str,
        trace: str,
    ) -> None:
        """Do work in the workers of one group; raises what `run_ranks` does.

        Args:
            work: what each worker does with `loop`.
            name: of the training.
            trace: name in the run of the file for a worker's traceback.
        """
        ranks = replace(self.ranks, name=f"{self.ranks.name}-{name}")
        with run_files(self.setting.run_path) as files:
            path = files.run.path / trace
            try:
                run_ranks(work, {"group": self, **loop}, ranks, trace=path, remedy="")
            finally:
                if path.is_file():
                    files.copy_out(path)

    def training(self, config: Config) -> tuple[Training, TrainingData]:
        """In a worker: its rank of a training, and its part of the data."""
        torch.set_num_threads(self.setting.num_threads)
        context = ray.train.get_context()
        group = Group(context.get_world_rank(), context.get_world_size())
        data = worker_training_data(self.sharded, group.rank)
        check_packable(config, data)
        return Training(config, data, pretrained_of(config, ray.get(self.states)), group), data


def train_group_trial(trial: dict[str, Any], *, group: GroupSearch) -> None:
    """One trial on several workers, from its first or its last checkpointed epoch to its end.

    Args:
        trial: `number` and `config`, as the searcher gives them.
        group: what the search shares.
    """
    number = int(trial["number"])
    reports: Any = ray.remote(num_cpus=0)(_Reports).remote()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            group.run(
                _train_rank,
                {"trial": trial, "reports": reports},
                f"trial-{number}",
                f"trials/{number}/error.txt",
            )
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    final: dict[str, Any] | None = None
    while final is None and thread.is_alive():
        report = ray.get(reports.receive.remote(_LOOK_EVERY_S))
        if report is None:
            continue
        if "ended" in report:
            final = report
        else:
            tune.report(report)
        ray.get(reports.taken.remote())
    # The workers let go of their places before the trial ends and another one wants them.
    thread.join()
    if final is None:
        final = _end_of_failed(number, group.setting, failures)
    tune.report(final)


def _end_of_failed(
    number: int, setting: TrialSetting, failures: list[BaseException]
) -> dict[str, Any]:
    """The last report of a trial whose workers failed.

    Raises:
        UnfinishedError: a worker's process died; Tune starts the trial again.
    """
    error = failures[0] if failures else RuntimeError("the workers ended without a result")
    if isinstance(error, UnfinishedError):
        raise error
    if isinstance(error, FerRayError):
        return {"rows": [], "ended": "failed", "error": error.message}
    if not isinstance(error, Exception):
        raise error
    return failure_of(number, setting, error)


def _train_rank(loop: dict[str, Any]) -> None:
    """What each worker does."""
    search: GroupSearch = loop["group"]
    trial = loop["trial"]
    reads = Reads(Config.model_validate(trial["config"]))
    training, data = search.training(reads.config)

    def send(report: dict[str, Any]) -> None:
        if training.group.is_main:
            ray.get(loop["reports"].send.remote(report))

    try:
        send(train_to_end(training, trial, reads, data, search.setting, send))
    except OSError as error:
        send(failure_of(int(trial["number"]), search.setting, error))
        raise
