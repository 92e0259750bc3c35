"""Does a body trained on something else help on real faces? ResNet18, several `unfreeze` depths.

    python benchmarks/experiments/transfer.py data/fer2013-8000 [--seeds 3] [--epochs 4]

1. `fer-ray train` trains a ResNet18 on drawn faces (`fer-ray data sample`): its bundle is a start.
2. The other start is a file of random weights of the same network.
3. From both, `fer-ray train` on DATA at each depth and seed, everything else equal.

Depths: 0 trains the head alone, 1 layer4 too, 2 layer3 too, 5 everything. At 5 the second start is
the random start that one has without other weights. Prints a line a run and a table of paired
differences with their 95 % t-intervals; the last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fer_ray.models import vision

DEPTHS = (0, 1, 2, 5)
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}
"""Student's t, two-sided 95 %, by degrees of freedom."""

CONFIG = """\
version: 1
name: transfer
data: {{source: {data}, image_size: 48, crop: 44}}
model: {{resnet: {{arch: resnet18, weights: {weights}, unfreeze: {unfreeze}}}}}
train:
  epochs: {epochs}
  batch_size: 64
  seed: {seed}
  optimizer: {{sgd: {{lr: 2.0e-2}}}}
  schedule: {{cosine: {{warmup_epochs: 0}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--drawn", type=int, default=12000, help="faces of the first training")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        start = drawn_start(place, arguments)
        random = random_start(place)
        rows = []
        for seed in range(arguments.seeds):
            for unfreeze in DEPTHS:
                row: dict[str, Any] = {"seed": seed, "unfreeze": unfreeze}
                for name, weights in (("drawn", start), ("random", random)):
                    run = place / f"{name}-{unfreeze}-{seed}"
                    row[name] = train(
                        run,
                        arguments.threads,
                        data=arguments.data.resolve(),
                        weights=weights,
                        unfreeze=unfreeze,
                        epochs=arguments.epochs,
                        seed=seed,
                    )
                print(row, flush=True)
                rows.append(row)
    table = [summary(unfreeze, rows) for unfreeze in DEPTHS]
    print(
        json.dumps({"n": arguments.seeds, "epochs": arguments.epochs, "rows": rows, "table": table})
    )


def drawn_start(place: Path, arguments: argparse.Namespace) -> Path:
    """A run that trained on drawn faces."""
    fer_ray("data", "sample", str(place / "faces"), "--count", str(arguments.drawn))
    fer_ray("data", "import", str(place / "faces"), str(place / "drawn"))
    accuracy = train(
        place / "start",
        arguments.threads,
        data=place / "drawn",
        weights="none",
        unfreeze=5,
        epochs=arguments.epochs,
        seed=0,
    )
    print(f"the first training: {accuracy:.4f} on drawn faces", flush=True)
    return place / "start"


def random_start(place: Path) -> Path:
    """The same network as a file of random weights, by torchvision's own initialisation."""
    torch.manual_seed(12345)
    file = place / "random.safetensors"
    save_file(vision.models().resnet18().state_dict(), file)
    return file


def train(run: Path, threads: int, **values: Any) -> float:
    """`fer-ray train`; gives its best validation accuracy."""
    config = run.with_suffix(".yaml")
    config.write_text(CONFIG.format(**values))
    fer_ray("train", str(config), "--out", str(run), "--threads", str(threads))
    metrics = json.loads((run / "best" / "metrics.json").read_text())
    return float(metrics["validation"]["accuracy"])


def fer_ray(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fer_ray", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)


def summary(unfreeze: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    here = [row for row in rows if row["unfreeze"] == unfreeze]
    gains = [100 * (row["drawn"] - row["random"]) for row in here]
    mean = statistics.mean(gains)
    half = math.inf
    if len(gains) > 1:
        half = T_975[len(gains) - 1] * statistics.stdev(gains) / math.sqrt(len(gains))
    means = {name: statistics.mean(row[name] for row in here) for name in ("drawn", "random")}
    print(
        f"unfreeze {unfreeze}: drawn {means['drawn']:.4f}, random {means['random']:.4f}, "
        f"gain {mean:+.2f} points ({mean - half:+.2f} to {mean + half:+.2f})"
    )
    return {"unfreeze": unfreeze, **means, "gain_points": mean, "half_width": half}


if __name__ == "__main__":
    main()
