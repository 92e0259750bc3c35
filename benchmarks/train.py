"""The training engine beside a bare hand-written loop and the usual DataLoader loop, in one run.

    python benchmarks/train.py [--images 1024] [--repeats 5] [--threads N] [--compile]
    python benchmarks/train.py --device cuda

On a CPU, small CNN at 44 pixels, batch 128, images a second:

    engine    fer-ray's loop: metrics, schedule, per-row weights, seeds
    bare      a hand-written loop on the same tensors, with the same augmentation and precision
    loader    ImageFolder, transforms image by image, DataLoader; the best of 0, 1 and 2 workers and
              of 1 and 2 threads

Each variant is a process of its own, so that its peak of memory is its own; their epochs alternate,
so that a busy moment hits all. Then two one-thread trainings side by side against one with two
threads. `--compile` measures torch.compile on one thread, with the time it takes to compile. On
CUDA: engine and compiled bare loop, small CNN and ResNet18, and 8 engines side by side on one card.
The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.labels import EXPRESSIONS

IMAGES_TO_TUNE_BY = 512
SCRIPT = Path(__file__).with_name("train_variants.py")


class Process:
    """A variant in its process."""

    def __init__(self, **settings: Any) -> None:
        self.images = settings["images"]
        command = [sys.executable, str(SCRIPT), json.dumps({"model": "cnn", **settings})]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(settings["threads"])},
        )
        self.memory: dict[str, float] = {}
        self.rates: list[float] = []
        self._answer()

    def ask(self) -> None:
        """Begin an epoch."""
        assert self._process.stdin is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()

    def seconds(self) -> float:
        """Wait for the epoch that was begun."""
        answer = self._answer()
        self.memory = {name: round(answer[name], 1) for name in answer if name.endswith("_mb")}
        return float(answer["seconds"])

    def epoch(self) -> float:
        """One epoch; gives images a second."""
        self.ask()
        return float(self.images / self.seconds())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a variant died: {self._process.args}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "n": arguments.repeats,
        "images": arguments.images,
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    if arguments.device == "cuda":
        result["cuda"] = on_cuda(arguments.images, arguments.repeats)
    elif arguments.compile:
        result["compile"] = compiled(arguments.images, arguments.repeats)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder, "all"), arguments.images)
            write_folder(Path(folder, "few"), min(arguments.images, IMAGES_TO_TUNE_BY))
            result["cpu"] = on_cpu(arguments, folder)
        result["side_by_side"] = side_by_side(arguments.images, arguments.repeats)
    print(json.dumps(result))


def write_folder(folder: Path, count: int) -> None:
    """The same faces as PNG files, a directory a class."""
    images, labels = draw_faces(count, 1)
    for name in EXPRESSIONS:
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / EXPRESSIONS[label] / f"{number}.png")


def measure(processes: dict[str, Process], repeats: int) -> None:
    """One epoch to warm up, then epochs in turn: there and back, so that none is always first."""
    for process in processes.values():
        process.epoch()
    order = list(processes.values())
    for _ in range(repeats):
        for process in order:
            process.rates.append(process.epoch())
        order.reverse()


def ratio(one: Process, other: Process) -> float:
    """Median of paired epochs."""
    pairs = zip(one.rates, other.rates, strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def ratio_of_best(one: Process, other: Process) -> float:
    """Of the fastest epochs, which nothing else on the machine slowed."""
    return round(max(one.rates) / max(other.rates), 3)


def summary(name: str, process: Process) -> dict[str, Any]:
    rates = process.rates
    median = statistics.median(rates)
    print(
        f"{name:<14}{median:>9,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f}), "
        f"{process.memory}"
    )
    return {"images_per_s": round(median), "range": [round(min(rates)), round(max(rates))]} | (
        process.memory
    )


def best_loader(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The fastest number of workers and threads of the usual loop, by one epoch of each."""
    rates = {}
    few = min(settings["images"], IMAGES_TO_TUNE_BY)
    for workers in (0, 1, 2):
        for threads in (1, 2):
            process = Process(
                **{**settings, "threads": threads, "images": few},
                variant="loader",
                workers=workers,
                folder=f"{folder}/few",
            )
            process.epoch()
            rates[workers, threads] = process.epoch()
            process.close()
    workers, threads = max(rates, key=lambda key: rates[key])
    tried = {f"{w} workers, {t} threads": round(rate) for (w, t), rate in rates.items()}
    print(f"loader {settings['precision']}: {tried}")
    return {"workers": workers, "threads": threads, "tried": tried}


def on_cpu(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    processes, chosen = {}, {}
    for precision in ("bf16", "fp32"):
        settings = {
            "images": arguments.images,
            "precision": precision,
            "threads": arguments.threads,
            "device": "cpu",
        }
        chosen[precision] = best_loader(settings, folder)
        tuned = {key: chosen[precision][key] for key in ("workers", "threads")}
        processes[f"engine {precision}"] = Process(**settings, variant="engine")
        processes[f"bare {precision}"] = Process(**settings, variant="bare")
        processes[f"loader {precision}"] = Process(
            **{**settings, **tuned}, variant="loader", folder=f"{folder}/all"
        )
    measure(processes, arguments.repeats)
    figures = {name: summary(name, process) for name, process in processes.items()}
    ratios = {
        "engine / bare, bf16": ratio(processes["engine bf16"], processes["bare bf16"]),
        "engine / bare, fp32": ratio(processes["engine fp32"], processes["bare fp32"]),
        "engine / loader, bf16": ratio(processes["engine bf16"], processes["loader bf16"]),
        "engine / loader, fp32": ratio(processes["engine fp32"], processes["loader fp32"]),
        "engine bf16 / loader fp32": ratio(processes["engine bf16"], processes["loader fp32"]),
        "engine bf16 / engine fp32": ratio(processes["engine bf16"], processes["engine fp32"]),
    }
    best = {
        f"engine / bare, {precision}": ratio_of_best(
            processes[f"engine {precision}"], processes[f"bare {precision}"]
        )
        for precision in ("bf16", "fp32")
    }
    for name, value in ratios.items():
        beside = f"; of the fastest epochs {best[name]}" if name in best else ""
        print(f"{name}: {value} (median of paired epochs{beside})")
    for process in processes.values():
        process.close()
    return {
        "threads": arguments.threads,
        "loader": chosen,
        "variants": figures,
        "ratios": ratios,
        "best": best,
    }


def together(processes: Sequence[Process]) -> float:
    """An epoch of each at the same time; images a second of all."""
    started = time.perf_counter()
    for process in processes:
        process.ask()
    for process in processes:
        process.seconds()
    seconds = time.perf_counter() - started
    return float(sum(process.images for process in processes) / seconds)


def side_by_side(images: int, repeats: int) -> dict[str, Any]:
    """Two one-thread trainings at once against one training with two threads."""
    settings = {"images": images, "precision": "bf16", "device": "cpu", "variant": "engine"}
    pair = [Process(**settings, threads=1) for _ in range(2)]
    alone = Process(**settings, threads=2)
    together(pair)
    alone.epoch()
    both: list[float] = []
    for _ in range(repeats):
        both.append(together(pair))
        alone.rates.append(alone.epoch())
    for process in (*pair, alone):
        process.close()
    return _against("2 of 1 thread", both, "1 of 2 threads", alone.rates)


def _against(one: str, ones: list[float], other: str, others: list[float]) -> dict[str, Any]:
    paired = statistics.median(a / b for a, b in zip(ones, others, strict=True))
    figures = {one: round(statistics.median(ones)), other: round(statistics.median(others))}
    print(f"{figures} images/s, ratio {paired:.3f}")
    return {**figures, "ratio": round(paired, 3)}


def compiled(images: int, repeats: int) -> dict[str, Any]:
    """torch.compile of the bare loop on one thread; its first epoch holds the compilation."""
    settings = {"images": images, "device": "cpu", "threads": 1, "variant": "bare"}
    result = {}
    for precision in ("bf16", "fp32"):
        plain = Process(**settings, precision=precision)
        fast = Process(**settings, precision=precision, compile=True)
        plain.epoch()
        first_s = images / fast.epoch()
        fast.epoch()
        for _ in range(repeats):
            plain.rates.append(plain.epoch())
            fast.rates.append(fast.epoch())
        figures = _against("compiled", fast.rates, "eager", plain.rates)
        saved_s = images / figures["eager"] - images / figures["compiled"]
        even = first_s / saved_s * images if saved_s > 0 else None
        result[precision] = {
            **figures,
            "first_epoch_s": round(first_s, 1),
            "pays_after_images": None if even is None else round(even),
        }
        print(f"{precision}: {result[precision]}")
        plain.close()
        fast.close()
    return result


def on_cuda(images: int, repeats: int) -> dict[str, Any]:
    """Engine and compiled bare loop, then 1 and 8 engines on one card."""
    result: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    for model in ("cnn", "resnet18"):
        settings = {
            "images": images,
            "precision": "bf16",
            "device": "cuda",
            "threads": 1,
            "model": model,
        }
        processes = {
            "engine": Process(**settings, variant="engine"),
            "bare compiled": Process(**settings, variant="bare", compile=True),
            "bare": Process(**settings, variant="bare"),
        }
        measure(processes, repeats)
        figures = {name: summary(f"{model} {name}", p) for name, p in processes.items()}
        eight = [processes["engine"], *(Process(**settings, variant="engine") for _ in range(7))]
        together(eight)
        rates = [together(eight) for _ in range(repeats)]
        result[model] = {
            **figures,
            "engine / compiled": ratio(processes["engine"], processes["bare compiled"]),
            **_against("8 engines", rates, "1 engine", processes["engine"].rates),
        }
        for process in [*processes.values(), *eight[1:]]:
            process.close()
    return result


if __name__ == "__main__":
    main()
