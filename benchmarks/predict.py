"""The Predictor beside what one would write by hand in each runtime, in one run.

    python benchmarks/predict.py [--bundle B] [--data PREPARED] [--images 1024] [--repeats 5]
                                 [--threads N] [--batches 1,32,256]

By hand: torch's eager fp32 network, ONNX Runtime and OpenVINO (fp32, and with its bf16 hint) with
their default settings but the same threads, on the same weights, each from uint8 images through the
same preprocessing to probabilities. The ways take turns, call by call, so that a busy moment hits
all of them. `--data` measures accuracy on a validation split, else on synthetic faces.

The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_ray.bundle.load import Bundle, find_bundle, load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.bundle.runtimes.onnx_graph import import_onnxruntime, onnx_graph
from fer_ray.bundle.runtimes.openvino_engine import import_openvino
from fer_ray.data.faces import draw_faces
from fer_ray.data.prepared import open_prepared, read_split
from fer_ray.images.preprocess import Preprocess

Images = np.ndarray[Any, np.dtype[np.uint8]]
Way = Callable[[Images], np.ndarray[Any, np.dtype[np.float32]]]

ASKED = {
    "predictor auto": ("auto", "auto"),
    "predictor torch fp32": ("torch", "fp32"),
    "predictor torch bf16": ("torch", "bf16"),
    "predictor openvino fp32": ("openvino", "fp32"),
    "predictor openvino bf16": ("openvino", "bf16"),
    "predictor onnxruntime fp32": ("onnxruntime", "fp32"),
}
SLICE_S = 0.15
"""A repeat of one way at one batch size."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batches", default="1,32,256")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(find_bundle(arguments.bundle))
    images, labels = load_images(arguments.data, arguments.images, bundle)
    starts: dict[str, float] = {}
    ways = by_hand(bundle, arguments.threads, starts)
    chosen = same = ""
    for name, (runtime, precision) in ASKED.items():
        started = time.perf_counter()
        predictor = Predictor(
            bundle, precision, "cpu", runtime=runtime, num_threads=arguments.threads
        )
        starts[name] = time.perf_counter() - started
        ways[name] = lambda batch, predictor=predictor: predictor.predict(batch).probabilities
        if name == "predictor auto":
            chosen, same = predictor.title, f"predictor {predictor.runtime} {predictor.precision}"
    print(f"auto: {chosen}")
    sizes = [int(size) for size in arguments.batches.split(",")]
    rates = measure(ways, images, sizes, arguments.repeats)
    agreement = accuracy(ways, images, labels)
    report(rates, agreement, starts, sizes)
    medians = {
        name: {str(size): statistics.median(rates[name][size]) for size in sizes} for name in ways
    }
    # What `auto` chose is among the ways under its own name too; that one is not another way.
    others = [name for name in ways if name != same]
    fastest = {str(size): max(others, key=lambda way: medians[way][str(size)]) for size in sizes}
    print(
        json.dumps(
            {
                "threads": arguments.threads,
                "n": arguments.repeats,
                "images": len(images),
                "chosen": chosen,
                "images_per_s": medians,
                "fastest": fastest,
                "auto_share_of_fastest": {
                    size: medians["predictor auto"][size] / medians[way][size]
                    for size, way in fastest.items()
                },
                "start_s": starts,
                "agreement": agreement,
            }
        )
    )


def load_images(data: Path | None, count: int, bundle: Bundle) -> tuple[Images, Any]:
    if data is None:
        return draw_faces(count, 11)
    split = read_split(open_prepared(data), "validation")
    return np.array(split.images), np.array(split.labels)


def by_hand(bundle: Bundle, threads: int, starts: dict[str, float]) -> dict[str, Way]:
    """Each from uint8 [N, H, W] to probabilities, the batch as it comes."""
    preprocess = Preprocess(bundle.contents.recipe)
    temperature = bundle.contents.calibration.temperature
    recipe = bundle.contents.recipe
    example = torch.zeros(2, recipe.channels, recipe.crop_px, recipe.crop_px)

    def way(network: Callable[[torch.Tensor], torch.Tensor]) -> Way:
        def predict(batch: Images) -> np.ndarray[Any, np.dtype[np.float32]]:
            with torch.inference_mode():
                logits = network(preprocess(torch.from_numpy(batch)))
                return (logits / temperature).softmax(1).numpy()

        return predict

    openvino, onnxruntime = import_openvino(), import_onnxruntime()
    started = time.perf_counter()
    graph = onnx_graph(bundle.model, example, "x", "logits").SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    starts["by hand onnxruntime fp32"] = time.perf_counter() - started
    started = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(
            bundle.model, example_input=example, input=[-1, *example.shape[1:]]
        )
    compiled = {
        precision: openvino.Core().compile_model(
            converted,
            "CPU",
            {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads},
        )
        for precision, hint in (("fp32", "f32"), ("bf16", "bf16"))
    }
    starts["by hand openvino"] = time.perf_counter() - started
    return {
        "by hand torch eager fp32": way(bundle.model),
        "by hand onnxruntime fp32": way(
            lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        ),
        **{
            f"by hand openvino {precision}": way(
                lambda x, model=model: torch.from_numpy(model(x.numpy())[0])
            )
            for precision, model in compiled.items()
        },
    }


def measure(
    ways: dict[str, Way], images: Images, sizes: list[int], repeats: int
) -> dict[str, dict[int, list[float]]]:
    """Images a second of each way at each batch size; a repeat is `SLICE_S` of calls."""
    rates: dict[str, dict[int, list[float]]] = {name: {} for name in ways}
    for size in sizes:
        batch = np.ascontiguousarray(images[:size])
        for name, way in ways.items():
            way(batch)
            rates[name][size] = []
        for repeat in range(repeats):
            order = list(ways)[:: 1 if repeat % 2 == 0 else -1]
            for name in order:
                rates[name][size].append(rate(ways[name], batch))
    return rates


def rate(way: Way, batch: Images) -> float:
    calls = 0
    started = time.perf_counter()
    while (seconds := time.perf_counter() - started) < SLICE_S or calls < 2:
        way(batch)
        calls += 1
    return calls * len(batch) / seconds


def accuracy(ways: dict[str, Way], images: Images, labels: Any) -> dict[str, dict[str, float]]:
    """Of each way on all images, and how far it is from the Predictor's torch in fp32."""
    answers = {
        name: np.concatenate([way(images[i : i + 256]) for i in range(0, len(images), 256)])
        for name, way in ways.items()
    }
    exact = answers["predictor torch fp32"]
    return {
        name: {
            "accuracy": float((found.argmax(1) == labels).mean()),
            "same_label": float((found.argmax(1) == exact.argmax(1)).mean()),
            "max_difference": float(np.abs(found - exact).max()),
        }
        for name, found in answers.items()
    }


def report(
    rates: dict[str, dict[int, list[float]]],
    agreement: dict[str, dict[str, float]],
    starts: dict[str, float],
    sizes: list[int],
) -> None:
    head = "".join(f"{f'batch {size}':>24}" for size in sizes)
    print(f"{'images/s, median (spread)':<28}{head}{'accuracy':>10}{'same':>9}{'start':>8}")
    for name, by_size in rates.items():
        cells = "".join(
            f"{f'{statistics.median(v):,.0f} ({min(v):,.0f}-{max(v):,.0f})':>24}"
            for v in by_size.values()
        )
        start = f"{starts[name]:.2f} s" if name in starts else ""
        print(
            f"{name:<28}{cells}{100 * agreement[name]['accuracy']:>8.2f} %"
            f"{100 * agreement[name]['same_label']:>7.2f} %{start:>8}"
        )


if __name__ == "__main__":
    main()
