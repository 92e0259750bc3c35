"""The training engine beside a bare hand-written loop, in one run.

    python benchmarks/train.py [--images 4096] [--repeats 5] [--threads N]

Both train the same network on the same uint8 tensor with the same augmentation function, precision
and optimizer, EMA off in both; the engine adds metrics, the schedule, per-row weights and seeds.
Epochs of the two alternate, so that a busy moment hits both. The last line on stdout is one JSON
document.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from fer_ray.config.schema import Config
from fer_ray.config.space import parse_space
from fer_ray.data.faces import draw_faces
from fer_ray.data.loading import TrainingData
from fer_ray.data.prepared import Split
from fer_ray.labels import EXPRESSIONS
from fer_ray.training.augment import augment
from fer_ray.training.loop import Training

CONFIG = """\
version: 1
name: benchmark
data: {source: sample}
model: {cnn: {channels: [64, 128, 256], stem_stride: 2}}
train: {epochs: 1000, batch_size: 128, ema: null, precision: PRECISION}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = faces(arguments.images)
    result: dict[str, object] = {"threads": arguments.threads, "n": arguments.repeats}
    for precision in ("bf16", "fp32"):
        config = parse_space(CONFIG.replace("PRECISION", precision), "benchmark").base
        engine, bare = Training(config, data), Bare(config, data)
        engine._train(1)
        bare.epoch()
        rates: dict[str, list[float]] = {"engine": [], "bare": []}
        for repeat in range(arguments.repeats):
            rates["engine"].append(
                rate(functools.partial(engine._train, repeat + 2), arguments.images)
            )
            rates["bare"].append(rate(bare.epoch, arguments.images))
        pairs = zip(rates["engine"], rates["bare"], strict=True)
        ratio = statistics.median(e / b for e, b in pairs)
        for name, values in rates.items():
            print(
                f"{precision} {name:<7}{statistics.median(values):>8,.0f} images/s "
                f"({min(values):,.0f} to {max(values):,.0f})"
            )
        print(f"{precision} engine / bare: {ratio:.3f} (median of paired epochs)")
        result[precision] = {
            **{name: statistics.median(values) for name, values in rates.items()},
            "ratio": ratio,
        }
    result["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


def faces(count: int) -> TrainingData:
    train, validation = Split(*draw_faces(count, 1)), Split(*draw_faces(256, 2))
    return TrainingData(EXPRESSIONS, train, validation, 0.5, 0.25, "sample", count, 48)


def rate(action: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    action()
    return count / (time.perf_counter() - started)


class Bare:
    """What a careful user would write by hand, nothing more."""

    def __init__(self, config: Config, data: TrainingData) -> None:
        self.config = config
        self.bf16 = config.train.precision == "bf16"
        layers: list[nn.Module] = []
        source = 1
        for number, width in enumerate((64, 128, 256)):
            for position in range(2):
                stride = 2 if number == 0 and position == 0 else 1
                layers += [
                    nn.Conv2d(source, width, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                source = width
            if number < 2:
                layers.append(nn.MaxPool2d(2))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, 7)]
        self.model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), 0.05, momentum=0.9, nesterov=True, fused=True
        )
        assert isinstance(data.train, Split)
        self.images = torch.from_numpy(data.train.images)
        self.labels = torch.from_numpy(data.train.labels)

    def epoch(self) -> None:
        generator = torch.Generator()
        self.model.train()
        for batch in torch.randperm(len(self.images)).split(128):
            x = augment(self.images[batch], self.config.augment, 44, generator)
            x = ((x - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = self.model(x)
            loss = F.cross_entropy(logits.float(), self.labels[batch], label_smoothing=0.1)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


if __name__ == "__main__":
    main()
