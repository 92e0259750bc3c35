"""Record learning curves of randomly drawn configurations, one row each, for the surrogate.

    python benchmarks/experiments/record_curves.py data/fer2013 curves.csv --count 100

No Ray and no search: uniform draws, each trained to its last epoch by the engine, nothing stopped,
so that the table favours no sampler and no scheduler. One process, one thread. Rows are appended as
they are done; a table that exists is continued.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from dataclasses import replace
from pathlib import Path

import torch

from fer_ray.config.space import SearchSpace, load_space, random_value
from fer_ray.data.loading import TrainingData, load_training_data
from fer_ray.data.prepared import Split
from fer_ray.training.loop import Training

SPACE = Path(__file__).parent.parent / "data" / "surrogate_space.yaml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("table", type=Path)
    parser.add_argument("--count", type=int, default=100, help="rows wanted in all")
    parser.add_argument("--seed-shift", type=int, default=0, help="the same draws, other seeds")
    parser.add_argument("--images", type=int, default=4096, help="of the training split")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = load_space(SPACE, [f"data.source={arguments.data}"])
    data = part_of(load_training_data(space.base.data), arguments.images)
    columns = ["number", "seconds", *(hole.address for hole in space.holes)]
    columns += [f"epoch_{epoch + 1}" for epoch in range(space.base.train.epochs)]
    if not arguments.table.exists():
        with arguments.table.open("w", newline="") as file:
            csv.writer(file).writerow(columns)
    done = sum(1 for _ in arguments.table.open()) - 1
    for number in range(done, arguments.count):
        params = drawn(space, number)
        started = time.perf_counter()
        curve = train(space, params, number + arguments.seed_shift, data)
        row = {**params, "number": number, "seconds": round(time.perf_counter() - started, 2)}
        row |= {f"epoch_{index + 1}": round(value, 5) for index, value in enumerate(curve)}
        with arguments.table.open("a", newline="") as file:
            csv.DictWriter(file, columns, restval="").writerow(row)
        print(number, row["seconds"], max(curve, default=float("nan")), flush=True)


def drawn(space: SearchSpace, number: int) -> dict[str, object]:
    """The configuration of a row; always the same."""
    generator = random.Random(number)
    return space.draw(lambda hole: random_value(hole, generator))


def part_of(data: TrainingData, count: int) -> TrainingData:
    """The first images by sample id, which begins with the hash: a fair sample."""
    assert isinstance(data.train, Split)
    part = Split(data.train.images[:count], data.train.labels[:count])
    return replace(data, train=part, num_train=count)


def train(
    space: SearchSpace, params: dict[str, object], seed: int, data: TrainingData
) -> list[float]:
    """Validation accuracy of each epoch; shorter where the training diverged."""
    config = space.resolve(params)
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"seed": seed, "device": "cpu"})}
    )
    return [row.objective for row in Training(config, data).epochs() if not row.diverged]


if __name__ == "__main__":
    main()
