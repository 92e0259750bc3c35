"""Two real processes over gloo: their step is that of one process, every row counts, none hangs."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, multiprocessing

from fer_ray.training.loop import Training
from tests.ranks import train_rank
from tests.small import small_config, small_data

_LONGEST_S = 120.0

NOTHING_RANDOM: dict[str, Any] = {
    "data.crop": 24,
    "model.cnn": {
        "channels": [4, 8],
        "convs_per_block": 2,
        "batchnorm": "none",
        "head_dropout": 0.0,
    },
    "augment": {
        "flip_p": 0.0,
        "rotate_deg": 0.0,
        "zoom_frac": 0.0,
        "shift_frac": 0.0,
        "brightness_frac": 0.0,
        "contrast_frac": 0.0,
        "erase_p": 0.0,
    },
}


ONE_STEP = {
    **NOTHING_RANDOM,
    "train.epochs": 1,
    "train.batch_size": 64,
    "train.class_weights": "balanced",
    "train.logit_adjustment": 0.5,
    "train.grad_clip": 0.5,
    "train.optimizer": {"sgd": {"lr": 0.1, "weight_decay": 0.01}},
}
EPOCHS = {"train.epochs": 2, "train.batch_size": 10}
"""7 steps over 64 rows, with everything random on."""

Left = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> list[Left]:
    """What two ranks leave of each of the two trainings, on shards of uneven sizes."""
    out = tmp_path_factory.mktemp("ranks")
    jobs = [([0, 41, 64], ONE_STEP), ([0, 37, 64], EPOCHS)]
    ranks = multiprocessing.start_processes(
        train_rank, (jobs, str(out)), nprocs=2, join=False, start_method="spawn"
    )
    assert ranks is not None
    deadline = time.monotonic() + _LONGEST_S
    while not ranks.join(timeout=1):
        if time.monotonic() > deadline:
            for process in ranks.processes:
                process.kill()
            raise AssertionError("a rank waits for another one for ever")
    return [
        [load_file(out / f"{job}-{rank}.safetensors") for rank in range(2)]
        for job in range(len(jobs))
    ]


def test_one_step_of_two_uneven_ranks_is_one_step_of_one_process(
    left: list[Left], tmp_path: Path
) -> None:
    start = Training(small_config(ONE_STEP), small_data()).model.state_dict()
    start = {name: value.clone() for name, value in start.items()}
    train_rank(0, [([0, 64], ONE_STEP)], str(tmp_path))
    one, both = load_file(tmp_path / "0-0.safetensors"), left[0]
    for name, before in start.items():
        assert torch.equal(both[0][name], both[1][name]), "the ranks stay one network"
        step, wanted = both[0][name] - before, one[name] - before
        assert float((step - wanted).norm() / wanted.norm()) <= 1e-5, name


def test_every_row_once_an_epoch_and_no_rank_waits_on_uneven_shards(left: list[Left]) -> None:
    seen = Counter(int(row) for state in left[1] for row in state["rows"])
    assert seen == dict.fromkeys(range(64), 2)
