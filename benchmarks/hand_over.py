"""How fast training images reach the training loop: handed over once, or read again every epoch.

    python benchmarks/hand_over.py [--images 8192] [--repeats 5]

Three ways over the same images, in one run, each giving shuffled normalised float batches of 128:

    once     fer-ray: Ray Data reads Parquet once, then index a uint8 tensor in memory
    parquet  Ray Data's `read_parquet(...).iter_torch_batches` every epoch, shuffled by a buffer
    folder   torchvision's ImageFolder + DataLoader over image files, two workers

The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import ray
import torch
from PIL import Image

from fer_ray.config.sections.data import DataConfig
from fer_ray.data.faces import draw_faces
from fer_ray.data.importing import import_images
from fer_ray.data.ray_data import put_training_data
from fer_ray.labels import EXPRESSIONS
from fer_ray.models import vision
from fer_ray.ray_session import ray_session

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ray_session():
        root = Path(folder)
        write_folder(root / "faces", arguments.images)
        import_images(root / "faces", root / "prepared", size_px=48, on_error="stop")
        seconds, data = timed(lambda: ray.get(put_training_data(config(root), print)))
        ways = {
            "once": lambda: in_memory(data.train.images, data.train.labels),
            "parquet": lambda: from_parquet(root / "prepared"),
            "folder": lambda: from_folder(root / "faces" / "train"),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeats):
            for name, way in ways.items():
                rates[name].append(epoch_rate(way, arguments.images))
    print(f"hand-over itself: {seconds:.2f} s, once a search")
    for name, values in rates.items():
        print(
            f"{name:<8} {statistics.median(values):>12,.0f} images/s an epoch "
            f"({min(values):,.0f} to {max(values):,.0f})"
        )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(json.dumps({"hand_over_s": seconds, "images_per_s": medians, "n": arguments.repeats}))


def config(root: Path) -> DataConfig:
    return DataConfig(source=str(root / "prepared"))


def write_folder(root: Path, count: int) -> None:
    """`count` training faces and 200 for validation, as PNG files in Kaggle's layout."""
    images, labels = draw_faces(count + 200, 0)
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        split, prefix = ("train", "Training") if number < count else ("test", "PublicTest")
        folder = root / split / EXPRESSIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{prefix}_{number}.png")


def timed(action: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def epoch_rate(way: Callable[[], Iterator[torch.Tensor]], count: int) -> float:
    started = time.perf_counter()
    rows = sum(len(batch) for batch in way())
    assert rows == count, (rows, count)
    return rows / (time.perf_counter() - started)


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images.unsqueeze(1).float() / 255 - 0.5) / 0.25


def in_memory(images: np.ndarray, labels: np.ndarray) -> Iterator[torch.Tensor]:
    tensor, answers = torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())
    for batch in torch.randperm(len(tensor)).split(BATCH):
        answers[batch]
        yield normalised(tensor[batch])


def from_parquet(path: Path) -> Iterator[torch.Tensor]:
    files = [str(file) for file in sorted(path.glob("part-train-*.parquet"))]
    dataset = ray.data.read_parquet(files).select_columns(["image", "label"])

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = np.frombuffer(b"".join(batch["image"]), np.uint8)
        return {"image": pixels.reshape(-1, 48, 48), "label": batch["label"].astype(np.int64)}

    batches = dataset.map_batches(decode).iter_torch_batches(
        batch_size=BATCH, local_shuffle_buffer_size=4096
    )
    for batch in batches:
        yield normalised(batch["image"])


def from_folder(path: Path) -> Iterator[torch.Tensor]:
    vision.models()
    from torchvision import datasets, transforms

    steps = [
        transforms.Grayscale(),
        transforms.ToTensor(),
        transforms.Normalize([0.5], [0.25]),
    ]
    dataset = datasets.ImageFolder(str(path), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=2)
    for images, _labels in loader:
        yield images


if __name__ == "__main__":
    main()
