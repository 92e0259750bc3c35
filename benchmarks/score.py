"""How fast folders are scored: fer-ray beside a hand-written loop, Ray's recipe and a DataLoader.

    python benchmarks/score.py [--images 3000 50000] [--repeats 5] [--only ours loop]

The same bundle, precision (fp32), images (48 x 48 JPEGs) and cores for all; each way runs in a
process of its own, whose wall time (imports and Ray's start apart, both told), peak memory and use
of the cores are measured. 500,000 images take hours on two cores: name them with --images.

    ours     `fer_ray.api.score` as it is, `--engine auto`
    ray      the same on Ray (`--engine ray`)
    loop     Pillow, batches of 32 through the same Predictor, one Parquet file at the end
    recipe   Ray's documented way: read_images, map_batches, write_parquet
    loader   a DataLoader with two workers, as timm's inference.py has it

The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("ours", "ray", "loop", "recipe", "loader")
BATCH = 32
CLOUD_CENT_A_CORE_HOUR = 4.0
"""A rough price of one cloud core, to turn a rate into cents a million images."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[3000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(one_run(arguments.run, arguments.source, arguments.out)))
        return
    results = []
    with tempfile.TemporaryDirectory(prefix="fer-ray-bench-") as folder:
        for count in arguments.images:
            source = write_images(Path(folder) / str(count), count)
            measured = compare(source, Path(folder), count, arguments)
            results.append({"images": count, "ways": measured})
    print(json.dumps({"n": arguments.repeats, "cores": os.cpu_count(), "results": results}))


def compare(source: Path, folder: Path, count: int, arguments: argparse.Namespace) -> Any:
    """Every way in turn, so that a slow minute of the machine hits all."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in arguments.only}
    for _ in range(arguments.repeats):
        for way in arguments.only:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            command = [sys.executable, __file__, "--run", way, "--source", source, "--out", out]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{count:>7} {way:<7}", done.stdout.splitlines()[-1], flush=True)
    table = {}
    for way, found in runs.items():
        seconds = [run["seconds"] for run in found]
        rate = count / statistics.median(seconds)
        table[way] = {
            "seconds": round(statistics.median(seconds), 3),
            "spread": [round(min(seconds), 3), round(max(seconds), 3)],
            "start_s": round(statistics.median(run["start_s"] for run in found), 2),
            "images_per_s": round(rate),
            "busy": round(statistics.median(run["busy"] for run in found), 2),
            "peak_mb": round(max(run["peak_mb"] for run in found)),
            "cent_per_million": round(
                1e6 / rate / 3600 * (os.cpu_count() or 1) * CLOUD_CENT_A_CORE_HOUR, 2
            ),
        }
        print(f"{count:>7} {way:<7}", json.dumps(table[way]))
    return table


def write_images(root: Path, count: int) -> Path:
    """Faces as JPEGs, 1,000 a folder: hard links to 500 different ones."""
    from PIL import Image

    from fer_ray.data.faces import draw_faces

    originals = root / "originals"
    originals.mkdir(parents=True)
    for number, pixels in enumerate(draw_faces(500, 3)[0]):
        Image.fromarray(pixels).save(originals / f"{number}.jpg", quality=90)
    for number in range(count):
        place = root / "faces" / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals / f"{number % 500}.jpg", place / f"{number:07d}.jpg")
    return root / "faces"


def one_run(way: str, source: Path, out: Path) -> dict[str, float]:
    """Load everything, then score with the clock running."""
    started = time.perf_counter()
    run: Callable[[Path, Path], int] = {
        "ours": prepare_ours,
        "ray": prepare_ray,
        "loop": prepare_loop,
        "recipe": prepare_recipe,
        "loader": prepare_loader,
    }[way]()
    begun = time.perf_counter()
    busy_before = core_seconds()
    rows = run(source, out)
    seconds = time.perf_counter() - begun
    busy = (core_seconds() - busy_before) / seconds / (os.cpu_count() or 1)
    assert rows == sum(1 for _ in files_of(source)), (way, rows)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    below = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak_mb = (own + below) / 1024
    start_s = begun - started
    return {"seconds": seconds, "start_s": start_s, "busy": busy, "peak_mb": peak_mb}


def core_seconds() -> float:
    """Seconds that all cores of the machine were busy, since it started."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def files_of(source: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(source):
        folders.sort()
        yield from (f"{parent}/{name}" for name in sorted(names))


def predictor_of() -> Any:
    from fer_ray import api

    return api.load_predictor(precision="fp32", num_threads=os.cpu_count())


def prepare_ours(engine: str = "auto") -> Callable[[Path, Path], int]:
    from fer_ray import api
    from fer_ray.score.options import Effort

    predictor = predictor_of()
    effort = Effort(engine=engine)
    return lambda source, out: api.score([str(source)], out, predictor, effort=effort).rows


def prepare_ray() -> Callable[[Path, Path], int]:
    start_ray()
    return prepare_ours("ray")


def prepare_loop() -> Callable[[Path, Path], int]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    predictor = predictor_of()

    def run(source: Path, out: Path) -> int:
        paths, labels, scores = [], [], []
        batch: list[np.ndarray] = []

        def flush() -> None:
            answers = predictor.predict(np.stack(batch))
            labels.extend(answers.label_indices.tolist())
            scores.append(answers.probabilities)
            batch.clear()

        for path in files_of(source):
            with Image.open(path) as image:
                batch.append(np.asarray(image.convert("L").resize((48, 48))))
            paths.append(path)
            if len(batch) == BATCH:
                flush()
        if batch:
            flush()
        table = pa.table({"path": paths, "label": labels})
        for index, name in enumerate(predictor.class_names):
            values = np.concatenate(scores)[:, index]
            table = table.append_column(f"p_{name}", pa.array(values))
        out.mkdir()
        pq.write_table(table, out / "part.parquet", compression="zstd")
        return len(paths)

    return run


def start_ray() -> None:
    from fer_ray.ray_session import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    import logging

    import ray

    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


class RecipeModel:
    """The actor of Ray's recipe."""

    def __init__(self) -> None:
        from fer_ray import api

        self.predictor = api.load_predictor(precision="fp32", num_threads=1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = np.stack([np.asarray(image) for image in batch["image"]]).reshape(-1, 48, 48)
        answers = self.predictor.predict(images)
        columns = {
            f"p_{name}": answers.probabilities[:, index]
            for index, name in enumerate(answers.class_names)
        }
        return {"path": batch["path"], "label": answers.label_indices, **columns}


def prepare_recipe() -> Callable[[Path, Path], int]:
    start_ray()
    import pyarrow.dataset as ds
    import ray.data

    def run(source: Path, out: Path) -> int:
        images = ray.data.read_images(str(source), mode="L", include_paths=True)
        compute = ray.data.ActorPoolStrategy(size=1)
        images.map_batches(RecipeModel, batch_size=256, compute=compute).write_parquet(str(out))
        return int(ds.dataset(out).count_rows())

    return run


class Faces:
    """A map-style data set of files."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            return np.asarray(image.convert("L").resize((48, 48))), index


def prepare_loader() -> Callable[[Path, Path], int]:
    import pandas as pd
    import torch

    predictor = predictor_of()

    def run(source: Path, out: Path) -> int:
        paths = list(files_of(source))
        loader = torch.utils.data.DataLoader(Faces(paths), batch_size=256, num_workers=2)
        parts = [predictor.predict(images.numpy()).probabilities for images, _ in loader]
        frame = pd.DataFrame(np.concatenate(parts), columns=list(predictor.class_names))
        frame.insert(0, "path", paths)
        out.mkdir()
        frame.to_parquet(out / "part.parquet")
        return len(frame)

    return run


if __name__ == "__main__":
    main()
