"""What each of several real processes does in tests of training in a group."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from fer_ray.data.prepared import Split
from fer_ray.training.group import Group
from fer_ray.training.loop import Training
from tests.small import small_config, small_data


def shard(start: int, end: int) -> Split:
    """Rows of the small data, each marked with its number in its first pixel."""
    whole = small_data().train
    assert isinstance(whole, Split)
    images = whole.images.copy()
    images[:, 0, 0] = range(len(images))
    return Split(images[start:end], whole.labels[start:end])


def train_rank(rank: int, jobs: list[tuple[list[int], dict[str, Any]]], out: str) -> None:
    """Train one network after the other as one of several ranks over gloo.

    Args:
        rank: this process.
        jobs: for each training, where the ranks' shards begin and end, and changes of the small
            config.
        out: directory; rank r leaves `<job>-<r>.safetensors` of each job: the weights, and `rows`,
            the images it saw, epoch after epoch.
    """
    torch.set_num_threads(1)
    size = len(jobs[0][0]) - 1
    if size > 1:
        store = f"file://{out}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    for number, (cuts, changes) in enumerate(jobs):
        data = dataclasses.replace(small_data(), train=shard(cuts[rank], cuts[rank + 1]))
        training = Training(small_config(changes), data, group=Group(rank, size))
        seen = _recording(training)
        for _ in training.epochs():
            pass
        state = {name: value.contiguous() for name, value in training.model.state_dict().items()}
        save_file({**state, "rows": torch.tensor(seen)}, Path(out) / f"{number}-{rank}.safetensors")
    if size > 1:
        dist.destroy_process_group()


def _recording(training: Training) -> list[int]:
    """A list that grows by the numbers of the rows that the training takes."""
    seen: list[int] = []
    take = training.rows.batches

    def batches(num_batches: int, seed: int) -> Any:
        for batch in take(num_batches, seed):
            seen.extend(batch.images[:, 0, 0].tolist())
            yield batch

    training.rows.batches = batches  # type: ignore[method-assign]
    return seen
