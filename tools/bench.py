"""`make bench`: every benchmark, briefly, each beside its baseline; one page a day.

    python tools/bench.py [NAME ...] [--keep]

Writes benchmarks/results/DATE.md: the machine, the versions, each command with what it printed, and
the ratios beside those of benchmarks/results/ratios.json. A ratio compares two ways within one
run: rates are a machine's own, ratios travel. `--keep` makes this run's ratios the ones to
compare with. Nothing else should run meanwhile. Exits 1 if a benchmark failed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
KEPT = RESULTS / "ratios.json"
PACKAGES = ("fer-ray", "torch", "torchvision", "ray", "optuna", "openvino", "onnxruntime")
WORTH_A_LOOK = 0.15
"""A ratio that moved by more than this share is marked; smaller moves are this noise's usual."""

INTRODUCTION = (
    "Written by `make bench`. Brief runs: read the ratios, and the spreads beside them; the full "
    "runs and what follows from them are in LOG.md and docs/."
)

Ratios = dict[str, float]


@dataclass(frozen=True)
class Benchmark:
    """A script of benchmarks/, its arguments for a brief run, and what to compare of its JSON."""

    script: str
    arguments: Sequence[str] = ()
    ratios: Callable[[Any], Ratios] = field(default=lambda document: {})


def _hand_over(document: Any) -> Ratios:
    rates = document["images_per_s"]
    return {f"once / {other}": rates["once"] / rates[other] for other in ("parquet", "folder")}


def _predict(document: Any) -> Ratios:
    shares = document["auto_share_of_fastest"]
    return {f"auto / fastest by hand, batch {size}": share for size, share in shares.items()}


def _train(document: Any) -> Ratios:
    return dict(document["cpu"]["ratios"])


def _score(document: Any) -> Ratios:
    found = {}
    for result in document["results"]:
        rates = {name: way["images_per_s"] for name, way in result["ways"].items()}
        for other in rates.keys() - {"ours"}:
            found[f"ours / {other}, {result['images']:,} images"] = rates["ours"] / rates[other]
    return found


def _photos(document: Any) -> Ratios:
    return {"reduced / full decoding": document["ratio"], "same label": document["same_label"]}


def _search(document: Any) -> Ratios:
    ours = document["fer-ray"]
    return {
        "slots in epochs": ours["busy"],
        "wall time, plain Ray / fer-ray": document["ray"]["wall_s"] / ours["wall_s"],
        "wall time, Optuna alone / fer-ray": document["optuna"]["wall_s"] / ours["wall_s"],
    }


def _search_scale(document: Any) -> Ratios:
    return {"busy between fill and drain": document["busy_share_inner"]}


def _serve(document: Any) -> Ratios:
    results = document["results"]
    found = {}
    for load in ("c1", "c8", "c64"):
        for other in ("bare", "litserve"):
            ours, theirs = results["direct"][load]["per_s"], results[other][load]["per_s"]
            found[f"direct / {other}, {load}"] = ours / theirs
    batch = results["direct"]["batch_images_per_s"]
    found["batch endpoint / score"] = batch / results["score_images_per_s"]
    return found


def _serve_soak(document: Any) -> Ratios:
    results = document["results"]
    singles, batches = results["overload"], results["overload_batches"]
    return {
        "goodput at twice capacity": singles["good_per_s"] / results["capacity_per_s"],
        "goodput at twice capacity, batches": batches["good_per_s"] / batches["capacity_per_s"],
    }


BENCHMARKS = (
    Benchmark("hand_over", ("--images", "4096", "--repeats", "3"), _hand_over),
    Benchmark("train", ("--repeats", "3"), _train),
    Benchmark("predict", ("--images", "512", "--repeats", "3"), _predict),
    Benchmark("score", ("--images", "3000", "--repeats", "3"), _score),
    Benchmark("score_photos", ("--photos", "40", "--repeats", "3"), _photos),
    Benchmark("score_scale", ("--names", "500000", "--finished", "10000000")),
    Benchmark("search", (), _search),
    Benchmark(
        "search_scale", ("--slots", "8", "--trials", "60", "--epoch-s", "0.5"), _search_scale
    ),
    Benchmark("search_surrogate", ("--pairs", "10")),
    Benchmark("serve", ("--seconds", "2", "--modes", "direct,bare,litserve"), _serve),
    Benchmark(
        "serve_soak",
        ("--minutes", "0.2", "--requests", "5000", "--overload-s", "5"),
        _serve_soak,
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one benchmark."""

    benchmark: Benchmark
    command: str
    seconds: float
    output: str
    ratios: Ratios
    failed: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [benchmark.script for benchmark in BENCHMARKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--keep", action="store_true", help="compare with these from now on")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [b for b in BENCHMARKS if not arguments.names or b.script in arguments.names]
    outcomes = [run(benchmark) for benchmark in chosen]
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    RESULTS.mkdir(exist_ok=True)
    # A part of them has a page of its own, so that it does not replace the day's whole one.
    words = [datetime.date.today().isoformat(), *sorted(arguments.names)]
    page = RESULTS / f"{'-'.join(words)}.md"
    page.write_text(page_of(outcomes, kept))
    print(f"\n{page.relative_to(ROOT)}")
    if arguments.keep:
        kept |= {
            o.benchmark.script: {name: round(value, 3) for name, value in o.ratios.items()}
            for o in outcomes
            if not o.failed
        }
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


def run(benchmark: Benchmark) -> Outcome:
    """One benchmark; what it prints is shown as it comes."""
    words = [f"benchmarks/{benchmark.script}.py", *benchmark.arguments]
    command = " ".join(["python", *words])
    print(f"\n== {command}", flush=True)
    started = time.perf_counter()
    lines = []
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    failed = process.returncode != 0
    seconds = time.perf_counter() - started
    ratios = {} if failed else benchmark.ratios(json.loads(lines[-1]))
    output = "\n".join(lines if failed else lines[:-1])  # the last one is the JSON
    return Outcome(benchmark, command, seconds, output, ratios, failed)


def page_of(outcomes: Sequence[Outcome], kept: dict[str, Ratios]) -> str:
    """The page in Markdown."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
    machine = (
        f"{processor()}, {os.cpu_count()} logical cores, {memory_gb():.0f} GB, "
        f"{platform.system()} {platform.machine()}"
    )
    parts = [
        f"# Benchmarks, {datetime.date.today().isoformat()}",
        INTRODUCTION,
        f"- machine: {machine}\n- Python {platform.python_version()}; {versions}",
    ]
    for outcome in outcomes:
        parts.append(
            f"## {outcome.benchmark.script}\n\n`{outcome.command}`, {outcome.seconds:.0f} s"
        )
        if outcome.failed:
            parts.append("**It failed.**")
        if outcome.ratios:
            parts.append(table_of(outcome.ratios, kept.get(outcome.benchmark.script, {})))
        parts.append(f"```\n{outcome.output}\n```")
    return "\n\n".join(parts) + "\n"


def table_of(ratios: Ratios, before: Ratios) -> str:
    """Ratios beside those of before."""
    lines = ["| ratio | now | before | |", "|---|---|---|---|"]
    for name, value in ratios.items():
        old = before.get(name)
        told = "" if old is None else f"{old:.2f}"
        moved = old is not None and abs(value / old - 1) > WORTH_A_LOOK
        lines.append(f"| {name} | {value:.2f} | {told} | {'**look**' if moved else ''} |")
    return "\n".join(lines)


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """As Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_gb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


if __name__ == "__main__":
    main()
