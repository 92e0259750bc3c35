"""A few steps of one configuration in a process of its own: seconds an epoch, memory, or why not.

    python -m fer_ray.search.probe < request.json > answer.json

The process may be killed for its memory; the caller then says so. JSON in, JSON out.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData, load_training_data
from fer_ray.data.prepared import Split
from fer_ray.errors import FerRayError

NUM_STEPS = 6
"""Of each pass."""
NUM_PASSES = 4
"""The first warms up and does not count."""
MAX_S = 60.0
"""No pass starts after; one that lasts longer is let end."""
_MAX_VALIDATION = 512


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        epoch_s: of training and validation, extrapolated to the whole data; None where it failed.
        low_s, high_s: of the quickest and the slowest pass.
        images_per_s: of training alone.
        setup_s: from a fresh process with torch to the first step.
        peak_bytes: of the process; on a GPU, of the device.
        error: why there is nothing.
    """

    epoch_s: float | None = None
    low_s: float = 0.0
    high_s: float = 0.0
    images_per_s: float = 0.0
    setup_s: float = 0.0
    peak_bytes: int = 0
    device: str = ""
    error: str | None = None


def probe(config: Config, num_threads: int) -> Probe:
    """Measure a configuration in a new process.

    Args:
        config: resolved, with its data's source.
        num_threads: of torch, as a trial would have.
    """
    request = {"config": config.training_part(), "num_threads": num_threads}
    done = subprocess.run(
        [sys.executable, "-m", "fer_ray.search.probe"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return Probe(error="out of memory: the system killed the process")
    if done.returncode < 0:
        return Probe(error=f"the process died of signal {-done.returncode}")
    try:
        return Probe(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        return Probe(error=last[0][:500])


def measure(config: Config, num_threads: int) -> Probe:
    """The probe itself, in this process."""
    import torch

    from fer_ray.training.loop import Training

    torch.set_num_threads(num_threads)
    data = load_training_data(config.data)
    part = _part(config, data)
    started = time.perf_counter()
    # Random weights: what they are does not change how long a step takes.
    training = Training(_endless(config), part)
    setup_s = time.perf_counter() - started
    assert isinstance(data.train, Split)
    counts = (len(data.train), len(data.validation.labels))
    parts = (part.num_train, len(part.validation.labels))
    seconds, rates = [], []
    for index, result in zip(range(NUM_PASSES), training.epochs(), strict=False):
        train_s = parts[0] / result.images_per_s
        if index:
            validate_s = (result.seconds - train_s) * counts[1] / parts[1]
            seconds.append(train_s * counts[0] / parts[0] + validate_s)
            rates.append(result.images_per_s)
        if seconds and time.perf_counter() - started > MAX_S:
            break
    if not seconds:
        return Probe(setup_s=setup_s, error="the training diverged within its first steps")
    middle = sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
    return Probe(
        epoch_s=seconds[middle],
        low_s=min(seconds),
        high_s=max(seconds),
        images_per_s=rates[middle],
        setup_s=setup_s,
        peak_bytes=_peak_bytes(training.device.type),
        device=training.device.type,
    )


def _part(config: Config, data: TrainingData) -> TrainingData:
    """As many rows as a few steps take."""
    assert isinstance(data.train, Split)
    rows = min(len(data.train), NUM_STEPS * config.train.batch_size)
    return replace(
        data,
        train=replace(data.train, images=data.train.images[:rows], labels=data.train.labels[:rows]),
        validation=Split(
            data.validation.images[:_MAX_VALIDATION], data.validation.labels[:_MAX_VALIDATION]
        ),
        num_train=rows,
    )


def _endless(config: Config) -> Config:
    """The same training without an end that a few passes could reach."""
    epochs = max(config.train.epochs, NUM_PASSES + 1)
    train = config.train.model_copy(update={"epochs": epochs, "early_stop": None})
    return config.model_copy(update={"train": train})


def _peak_bytes(device: str) -> int:
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Answer one request."""
    request: dict[str, Any] = json.load(sys.stdin)
    try:
        answer = measure(Config.model_validate(request["config"]), request["num_threads"])
    except FerRayError as error:
        answer = Probe(error=error.message)
    except Exception as error:  # noqa: BLE001
        # Out of the device's memory, or a bug: the plan says which, and goes on.
        answer = Probe(error=f"{type(error).__name__}: {error}"[:500])
    sys.stdout.write(json.dumps(asdict(answer)) + "\n")


if __name__ == "__main__":
    main()
