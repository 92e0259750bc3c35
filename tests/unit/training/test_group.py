"""Rows of several ranks: each exactly once an epoch, the same number of steps everywhere."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_ray.config.space import parse_space
from fer_ray.data.loading import TrainingData, load_training_data
from fer_ray.data.prepared import Split
from fer_ray.errors import UserError
from fer_ray.training.group import Group
from fer_ray.training.loop import Training
from fer_ray.training.seeds import seed_of

CONFIG = """\
version: 1
name: group
data: {source: sample, image_size: 16, crop: 16}
model: {cnn: {channels: [2], convs_per_block: 1, batchnorm: none}}
train: {epochs: 1, batch_size: %d}
"""


class PretendedGroup(Group):
    """A rank whose peers are only known by their shard sizes."""

    sizes: tuple[int, ...]

    def __init__(self, rank: int, sizes: tuple[int, ...]) -> None:
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "size", len(sizes))
        object.__setattr__(self, "sizes", sizes)

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        return model

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return value

    def gather_ints(self, value: int) -> list[int]:
        return list(self.sizes)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """The built-in faces at 16 pixels, each marked with its number in its first two pixels."""
    loaded = load_training_data(parse_space(CONFIG % 8, "test").base.data)
    assert isinstance(loaded.train, Split)
    images = np.ascontiguousarray(loaded.train.images[:200, ::3, ::3])
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(200), 256)
    train = Split(images, loaded.train.labels[:200])
    return dataclasses.replace(loaded, train=train, size_px=16)


def training(data: TrainingData, rank: int, sizes: tuple[int, ...], batch_size: int) -> Training:
    start = sum(sizes[:rank])
    rows = slice(start, start + sizes[rank])
    assert isinstance(data.train, Split)
    shard = Split(data.train.images[rows], data.train.labels[rows])
    config = parse_space(CONFIG % batch_size, "test").base
    return Training(
        config, dataclasses.replace(data, train=shard), group=PretendedGroup(rank, sizes)
    )


def batches_of(one: Training) -> list[list[int]]:
    """Numbers of the rows in each batch of the first epoch."""
    return [
        (batch.images[:, 0, 0].int() * 256 + batch.images[:, 0, 1].int()).tolist()
        for batch in one.rows.batches(one.num_steps, seed_of(0, 1, "order", one.group.rank))
    ]


@settings(max_examples=15, deadline=None)
@given(count=st.integers(12, 90), workers=st.integers(1, 3), batch_size=st.integers(4, 40))
def test_every_row_once_and_equal_steps(
    data: TrainingData, count: int, workers: int, batch_size: int
) -> None:
    cuts = [round(count * worker / workers) for worker in range(workers + 1)]
    sizes = tuple(b - a for a, b in itertools.pairwise(cuts))
    rows: Counter[int] = Counter()
    steps = []
    by_step: Counter[int] = Counter()
    for rank in range(workers):
        one = training(data, rank, sizes, batch_size)
        batches = batches_of(one)
        steps.append(len(batches))
        for step, batch in enumerate(batches):
            by_step[step] += len(batch)
            rows.update(batch)
    assert set(rows.values()) == {1}
    assert len(rows) == count
    assert len(set(steps)) == 1
    assert [by_step[s] for s in range(steps[0])] == [one._rows_of_step(s) for s in range(steps[0])]


def test_ranks_draw_different_randomness(data: TrainingData) -> None:
    orders = []
    for rank in range(2):
        one = training(data, rank, (50, 50), 100)
        batches = batches_of(one)
        orders.append([row for batch in batches for row in batch])
    assert orders[0] != orders[1]


def test_a_batch_smaller_than_the_group_is_refused(data: TrainingData) -> None:
    with pytest.raises(UserError, match=r"batch_size >= workers must hold"):
        training(data, 0, (30, 30, 30), 2)


def test_shards_without_a_row_a_step_are_refused(data: TrainingData) -> None:
    with pytest.raises(UserError, match="too small or too uneven"):
        training(data, 0, (90, 3), 8)
