"""One way to train, in a process of its own: `benchmarks/train.py` starts it and asks for epochs.

    python benchmarks/train_variants.py '{"variant": "engine", "precision": "bf16", ...}'

Every line on stdin asks for one epoch; the answer is a line of JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from fer_ray.config.schema import Config
from fer_ray.config.space import parse_space
from fer_ray.data.faces import draw_faces
from fer_ray.data.loading import TrainingData
from fer_ray.data.prepared import Split
from fer_ray.labels import EXPRESSIONS
from fer_ray.models import vision
from fer_ray.training.augment import augment
from fer_ray.training.loop import Training

BATCH_SIZE = 128
CONFIG = """\
version: 1
name: benchmark
data: {source: sample, channels: CHANNELS}
model: MODEL
train: {epochs: 100000, batch_size: 128, ema: null, device: DEVICE, precision: PRECISION}
"""
MODELS = {
    "cnn": ("1", "{cnn: {channels: [64, 128, 256], stem_stride: 2}}"),
    "resnet18": ("3", "{resnet: {arch: resnet18, weights: none, head_dropout: 0.0}}"),
}


class Variant(Protocol):
    """A way to train."""

    def epoch(self) -> None: ...


def config_of(settings: dict[str, Any]) -> Config:
    channels, model = MODELS[settings["model"]]
    text = CONFIG.replace("CHANNELS", channels).replace("MODEL", model)
    text = text.replace("DEVICE", settings["device"]).replace("PRECISION", settings["precision"])
    return parse_space(text, "benchmark").base


class Engine:
    """fer-ray's own loop."""

    def __init__(self, settings: dict[str, Any]) -> None:
        count = settings["images"]
        train, validation = Split(*draw_faces(count, 1)), Split(*draw_faces(64, 2))
        data = TrainingData(EXPRESSIONS, train, validation, 0.5, 0.25, "sample", count, 48)
        self.training = Training(config_of(settings), data)
        self.number = 0

    def epoch(self) -> None:
        self.number += 1
        self.training._train(self.number)


def hand_written(model: str) -> nn.Module:
    """The engine's network, as a user would write it down."""
    if model == "resnet18":
        network: nn.Module = vision.models().resnet18(weights=None, num_classes=7)
        return network
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
    return nn.Sequential(*layers)


class Bare:
    """What a careful user would write by hand, nothing more; compiled where that is asked for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.device = torch.device(settings["device"])
        self.augmentation = config_of(settings).augment
        self.channels = 3 if settings["model"] == "resnet18" else 1
        self.bf16 = settings["precision"] == "bf16"
        self.model = hand_written(settings["model"]).to(
            self.device, memory_format=torch.channels_last
        )
        weights = [p for p in self.model.parameters() if p.ndim >= 2]
        rest = [p for p in self.model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.SGD(
            [{"params": weights, "weight_decay": 5e-4}, {"params": rest}],
            0.05,
            momentum=0.9,
            nesterov=True,
            fused=True,
        )
        self.net: Callable[..., Any] = self.model
        if settings.get("compile"):
            self.net = torch.compile(self.model)
        images, labels = draw_faces(settings["images"], 1)
        self.images = torch.from_numpy(images).to(self.device)
        self.labels = torch.from_numpy(labels).long().to(self.device)
        self.generator = torch.Generator(self.device)

    def epoch(self) -> None:
        self.model.train()
        for batch in torch.randperm(len(self.images), device=self.device).split(BATCH_SIZE):
            x = augment(self.images[batch], self.augmentation, 44, self.generator)
            x = ((x - 0.5) / 0.25).expand(-1, self.channels, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.net(x)
            loss = F.cross_entropy(logits.float(), self.labels[batch], label_smoothing=0.1)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


class Loader:
    """As most users write it: ImageFolder, transforms image by image, a DataLoader."""

    def __init__(self, settings: dict[str, Any]) -> None:
        vision.models()  # torchvision imports, whatever build it is
        from torchvision import datasets, transforms

        self.bf16 = settings["precision"] == "bf16"
        steps = transforms.Compose(
            [
                transforms.Grayscale(),
                transforms.RandomCrop(44),
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
                transforms.ColorJitter(brightness=0.2, contrast=0.2),
                transforms.ToTensor(),
                transforms.Normalize(0.5, 0.25),
                transforms.RandomErasing(0.25, scale=(0.0, 0.2)),
            ]
        )
        workers = settings["workers"]
        self.loader = torch.utils.data.DataLoader(
            datasets.ImageFolder(settings["folder"], steps),
            BATCH_SIZE,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.model = hand_written(settings["model"])
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9, nesterov=True)

    def epoch(self) -> None:
        self.model.train()
        for images, labels in self.loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = self.model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


VARIANTS: dict[str, Callable[[dict[str, Any]], Variant]] = {
    "engine": Engine,
    "bare": Bare,
    "loader": Loader,
}


def memory_mb() -> dict[str, float]:
    """Peak of this process, and what its DataLoader workers hold of their own now."""
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    own = 0.0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):  # it may have ended
                lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
                own += sum(float(line.split()[1]) for line in lines if line.startswith("Private"))
    result = {"peak_mb": float(peak.split()[1]) / 1024, "workers_mb": own / 1024}
    if torch.cuda.is_available():
        result["device_mb"] = torch.cuda.max_memory_reserved() / 2**20
    return result


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    on_cuda = settings["device"] == "cuda"
    variant = VARIANTS[settings["variant"]](settings)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        variant.epoch()
        if on_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, **memory_mb()}), flush=True)


if __name__ == "__main__":
    main()
