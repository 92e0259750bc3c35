"""Which runtime a Predictor works in: asked for, or chosen once by measurement.

Only what is installed and gives the bundle's golden answers is chosen among. Nothing is measured
where one candidate remains, or where the work ahead is too small for a conversion to pay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fer_ray.bundle.runtimes.engine import (
    RUNTIMES,
    CropsToLogits,
    Engine,
    is_installed,
    require_package,
    versions_of,
)
from fer_ray.bundle.runtimes.onnx_engine import OnnxEngine
from fer_ray.bundle.runtimes.openvino_engine import OpenVinoEngine
from fer_ray.bundle.runtimes.torch_engine import TorchEngine
from fer_ray.errors import BundleError, UserError
from fer_ray.models.inference import resolve_precision

CONVERSION_S = {"openvino": 1.0, "onnxruntime": 3.0}
"""Roughly what starting one costs, in seconds, most of it the conversion from torch."""

_BATCHES = (1, 32, 64, 256)
"""Images a call, as measured; the best of the larger ones becomes the batch size."""
_BUDGET_S = 0.2
"""Of a runtime's measurement; a size that would exceed it is left out."""


@dataclass(frozen=True)
class Job:
    """What a Predictor is for.

    Attributes:
        runtime: `auto` or one of `RUNTIMES`.
        precision: `auto`, `fp32` or `bf16`.
        device: where torch computes.
        num_threads: of the network.
        expected_calls: crops the network will see, None where there is no end to them.
    """

    runtime: str
    precision: str
    device: torch.device
    num_threads: int
    expected_calls: int | None


@dataclass(frozen=True)
class Rates:
    """Images a second of an engine, alone and in batches of `batch_size`."""

    runtime: str
    precision: str
    batch_size: int
    alone: float
    batched: float

    def __str__(self) -> str:
        return (
            f"{self.runtime} {self.precision} {self.alone:,.0f}/s one by one, "
            f"{self.batched:,.0f}/s in batches of {self.batch_size}"
        )


@dataclass(frozen=True)
class Choice:
    """An engine and why it was taken.

    Attributes:
        engine: agrees with the golden answers.
        reason: a sentence.
        measured: all that were compared, the best first.
        skipped: runtime -> why it was not compared although it is installed.
    """

    engine: Engine
    reason: str
    measured: tuple[Rates, ...] = ()
    skipped: dict[str, str] | None = None

    @property
    def versions(self) -> dict[str, str]:
        return versions_of(self.engine.runtime)


def build_engine(runtime: str, precision: str, network: CropsToLogits, job: Job) -> Engine:
    """One engine, whatever the others could do.

    Raises:
        UserError: not installed, or it cannot compute so here.
    """
    if runtime == "torch":
        return TorchEngine(network, precision, job.device)
    crop_px = network.preprocess.recipe.crop_px
    if runtime == "openvino":
        return OpenVinoEngine(network, precision, job.num_threads, crop_px)
    return OnnxEngine(network, precision, job.num_threads, crop_px)


def choose(
    network: CropsToLogits, job: Job, golden_crops: Tensor, check: Callable[[Engine], None]
) -> Choice:
    """Take the runtime asked for, or the fastest.

    Args:
        network: on the CPU, in fp32.
        job: what is asked and what lies ahead.
        golden_crops: uint8 [16, c, c], to measure with.
        check: raises `BundleError` where an engine does not give the golden answers.

    Raises:
        UserError: the runtime asked for is not installed or cannot compute so.
        BundleError: it does not give the golden answers.
    """
    fixed = _without_measuring(job)
    if fixed is not None:
        runtime, reason = fixed
        if runtime != "torch" and not is_installed(runtime):
            require_package(runtime, runtime)
        engine = build_engine(runtime, _precision(runtime, job), network, job)
        check(engine)
        return Choice(engine, reason)
    torch_engine = build_engine("torch", _precision("torch", job), network, job)
    check(torch_engine)
    others = [runtime for runtime in _candidates(job) if runtime != "torch"]
    if job.expected_calls is not None:
        seconds = job.expected_calls * _seconds(torch_engine, golden_crops) / len(golden_crops)
        # Were another twice as fast, it would save half of that.
        others = [runtime for runtime in others if seconds / 2 > CONVERSION_S[runtime]]
        if not others:
            return Choice(
                torch_engine,
                f"about {seconds:.1f} s of work in torch: converting for another runtime "
                "would cost more than it gains",
            )
    return _fastest(torch_engine, others, network, job, golden_crops, check)


def _without_measuring(job: Job) -> tuple[str, str] | None:
    """The runtime and the reason, where there is nothing to compare."""
    if job.runtime != "auto":
        if job.runtime != "torch" and job.device.type != "cpu":
            raise UserError(
                f"{job.runtime} computes on the CPU, not on {job.device.type}", "Use device: cpu."
            )
        return job.runtime, "asked for"
    if job.device.type != "cpu":
        return "torch", f"the others do not compute on {job.device.type}"
    if job.precision == "fp32":
        return "torch", "fp32 means torch unless a runtime is named: the same answers everywhere"
    if _candidates(job) == ["torch"]:
        return "torch", "no other runtime is installed (fer-ray[openvino], fer-ray[onnx])"
    return None


def _candidates(job: Job) -> list[str]:
    wanted = [name for name in RUNTIMES if name != "onnxruntime" or job.precision != "bf16"]
    return [name for name in wanted if is_installed(name)]


def _precision(runtime: str, job: Job) -> str:
    if runtime == "onnxruntime" and job.precision == "auto":
        return "fp32"
    return resolve_precision(job.precision, job.device)


def _fastest(
    torch_engine: Engine,
    others: list[str],
    network: CropsToLogits,
    job: Job,
    golden_crops: Tensor,
    check: Callable[[Engine], None],
) -> Choice:
    engines = [torch_engine]
    skipped: dict[str, str] = {}
    for runtime in others:
        try:
            engine = build_engine(runtime, _precision(runtime, job), network, job)
            check(engine)
            engines.append(engine)
        except (UserError, BundleError) as error:
            skipped[runtime] = error.message
        except Exception as error:  # noqa: BLE001 - a third party's converter; it is said, and torch remains
            skipped[runtime] = f"{type(error).__name__}: {str(error)[:200]}"
    pairs = [(engine, measure(engine, golden_crops)) for engine in engines]
    only_batches = job.expected_calls is not None
    pairs.sort(
        key=lambda pair: pair[1].batched if only_batches else pair[1].alone * pair[1].batched,
        reverse=True,
    )
    engine, best = pairs[0]
    engine.batch_size = best.batch_size
    measured = tuple(rates for _, rates in pairs)
    reason = "measured: " + "; ".join(str(rates) for rates in measured)
    for runtime, why in skipped.items():
        reason += f"; left out {runtime}: {why}"
    return Choice(engine, reason, measured, skipped or None)


def measure(engine: Engine, golden_crops: Tensor) -> Rates:
    """Images a second at a few batch sizes, in about `_BUDGET_S`."""
    rates = Rates(engine.runtime, engine.precision, engine.batch_size, 0.0, 0.0)
    spent = 0.0
    for size in _BATCHES:
        copies = math.ceil(size / len(golden_crops))
        crops = golden_crops.repeat(copies, 1, 1)[:size]
        first = rates.batched or rates.alone
        if first and spent + 3 * size / first > _BUDGET_S and rates.batched:
            break
        started = time.perf_counter()
        rate = size / _seconds(engine, crops)
        spent += time.perf_counter() - started
        if size == 1:
            rates = replace(rates, alone=rate)
        elif rate > rates.batched:
            rates = replace(rates, batched=rate, batch_size=size)
    return rates


def _seconds(engine: Engine, crops: Tensor) -> float:
    """Of a call; the best of a few, for others may keep the machine busy. The first warms up."""
    best = math.inf
    engine.logits(crops)
    until = time.perf_counter() + _BUDGET_S / 8
    for _ in range(20):
        started = time.perf_counter()
        engine.logits(crops)
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended > until:
            break
    return best


def as_dict(choice: Choice) -> dict[str, Any]:
    """For manifests and `--json`."""
    rounded = [
        {
            "runtime": rates.runtime,
            "precision": rates.precision,
            "batch_size": rates.batch_size,
            "images_per_s_alone": round(rates.alone, 1),
            "images_per_s_batched": round(rates.batched, 1),
        }
        for rates in choice.measured
    ]
    return {
        "runtime": choice.engine.runtime,
        "precision": choice.engine.precision,
        "batch_size": choice.engine.batch_size,
        "reason": choice.reason,
        "versions": choice.versions,
        "measured": rounded,
        "skipped": choice.skipped or {},
    }
