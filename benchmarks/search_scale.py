"""How many slots one driver can feed: fake trials that import no torch and sleep through epochs.

    python benchmarks/search_scale.py [--slots 64] [--trials 2000] [--epoch-s 1.0] [--report engine]

Real: fer-ray's study, TPE with conditionals, ASHA, `study.db`, Ray Tune, one Ray worker process a
slot, reports as a trial's. Fake: Ray is told that the machine has as many cores as slots, an epoch
is a sleep, and its value follows from the configuration; no data, no bundle. Linux only.

Prints how busy the slots were between the first trial's start and the last one's end, and without
the first fill and the last drain; how long the sampler took; trials and reports a second; the
driver's memory over time. `--report each` sends every epoch, `rungs` only at rungs and the end,
`engine` as the engine does: at rungs and at most once a second. The last line on stdout is one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from fer_ray.config.space import parse_space
from fer_ray.ray_session import ENVIRONMENT
from fer_ray.runs import RunDirectory
from fer_ray.search.reading import read_run
from fer_ray.search.slots import Slots, slots_of

SPACE = """\
version: 1
name: scale
data: {source: sample}
model:
  one_of:
    cnn: {depth: {int: [3, 5]}, width: {choice: [32, 48, 64]}, head_dropout: {float: [0.0, 0.5]}}
    resnet: {weights: none, head: {choice: [[], [256]]}, head_dropout: {float: [0.0, 0.5]}}
augment: {rotate_deg: {float: [0, 20]}, erase_p: {float: [0.0, 0.5]}}
train:
  epochs: 27
  batch_size: {choice: [64, 128, 256]}
  label_smoothing: {float: [0.0, 0.15]}
  optimizer:
    one_of:
      sgd: {lr: {log: [1.0e-3, 3.0e-1]}, weight_decay: {log: [1.0e-5, 1.0e-3]}}
      adamw: {lr: {log: [1.0e-5, 1.0e-2]}, weight_decay: {log: [1.0e-6, 1.0e-1]}}
  schedule:
    one_of:
      cosine: {warmup_epochs: {int: [0, 2]}}
      exponential: {gamma: {float: [0.85, 0.99]}}
search: {seed: 7}
scheduler: {asha: {grace_epochs: 3, reduction: 3}}
"""


def sleep_through(
    config: dict[str, Any], *, epoch_s: float, report: str, rungs: tuple[int, ...]
) -> None:
    """A trial: its epochs are sleeps, its reports those of `train_trial`."""
    import hashlib
    import json as json_module
    import math as math_module
    import time as clock

    from ray import tune

    text = json_module.dumps(config["config"], sort_keys=True).encode()
    draw = int.from_bytes(hashlib.sha256(text).digest()[:4], "big") / 2**32
    optimizer = config["config"]["train"]["optimizer"]
    away = math_module.log10(next(iter(optimizer.values()))["lr"]) + 2
    height = 0.7 - 0.03 * away * away - 0.02 * draw
    rows: list[dict[str, Any]] = []
    sent = due = clock.monotonic()
    epochs = config["config"]["train"]["epochs"]
    for epoch in range(1, epochs + 1):
        due += epoch_s
        clock.sleep(max(0.0, due - clock.monotonic()))
        value = height * (1 - 0.6 * math_module.exp(-epoch / 5))
        rows.append(
            {
                "epoch": epoch,
                "objective": value,
                "best_objective": value,
                "best_epoch": epoch,
                "diverged": False,
                "seconds": epoch_s,
                "time": clock.time(),
            }
        )
        late = report == "engine" and clock.monotonic() - sent >= 1.0
        if epoch < epochs and (report == "each" or late or epoch in rungs):
            tune.report({"rows": rows})
            rows, sent = [], clock.monotonic()
            due = max(due, sent - epoch_s)
    tune.report({"rows": rows, "ended": "complete"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epoch-s", type=float, default=1.0)
    parser.add_argument("--report", choices=("engine", "each", "rungs"), default="engine")
    arguments = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # As many processes as slots start on the few cores there are: Ray would give up on them after a
    # minute and start others, for ever.
    os.environ["RAY_worker_register_timeout_seconds"] = "900"  # noqa: SIM112
    import ray

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(
        "local",
        num_cpus=arguments.slots,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=256 * 1024 * 1024,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder) / "run", arguments)))
    finally:
        ray.shutdown()


def measure(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One search; prints its figures and gives them."""
    from ray import tune

    from fer_ray.search import fitting
    from fer_ray.search.progress import Progress
    from fer_ray.search.resources import Slots as Layout
    from fer_ray.search.study import Study

    space = parse_space(SPACE, "scale.yaml", [f"search.trials={arguments.trials}"])
    run = RunDirectory(path)
    run.create("tune", space.text, "sample")
    study = Study(run, space, "sample")
    study.open_session(arguments.slots)
    trainable = tune.with_parameters(
        sleep_through,
        epoch_s=arguments.epoch_s,
        report=arguments.report,
        rungs=study.asha.rungs,
    )
    layout = Layout(cpu=1.0, gpu=0.0, workers=1, count=arguments.slots, limit=None)
    with Memory() as memory:
        started = time.perf_counter()
        how, fatal = fitting.fit(study, trainable, layout, Progress(study, live=False), None)
        wall_s = time.perf_counter() - started
    study.close_session(how)
    study.close()
    assert how == "finished", fatal
    history = read_run(path)
    slots = slots_of(history)
    asks = sorted(t.attributes["ask_s"] for t in history.trained if "ask_s" in t.attributes)
    epochs = sum(trial.epoch for trial in history.trained)
    torch_free = "torch" not in sys.modules
    result = {
        "slots": arguments.slots,
        "trials": len(history.trained),
        "epochs": epochs,
        "epoch_s": arguments.epoch_s,
        "report": arguments.report,
        "wall_s": round(wall_s, 1),
        "span_s": round(slots.span_s, 1),
        "busy_share": round(slots.busy_share, 4),
        "busy_share_inner": round(inner_share(slots, arguments.slots), 4),
        "trained_share": round(epochs * arguments.epoch_s / (arguments.slots * slots.span_s), 4),
        "trials_per_s": round(len(history.trained) / slots.span_s, 2),
        "epochs_per_s": round(epochs / slots.span_s, 1),
        "ask_ms": {
            name: round(1e3 * asks[min(len(asks) - 1, int(share * len(asks)))], 1)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "driver_rss_mb": memory.quarters(),
        "driver_without_torch": torch_free,
        "study_db_mb": round(run.study_db.stat().st_size / 1e6, 1),
    }
    for name, value in result.items():
        print(f"{name:>22}  {value}")
    return result


def inner_share(slots: Slots, count: int) -> float:
    """Busy share between the moment when all slots were first busy and the last start."""
    firsts: dict[int, float] = {}
    for stay in slots.stays:
        firsts[stay.slot] = min(stay.start_s, firsts.get(stay.slot, stay.start_s))
    begin, end = max(firsts.values()), max(stay.start_s for stay in slots.stays)
    if end <= begin:
        return 0.0
    busy = sum(max(0.0, min(s.end_s, end) - max(s.start_s, begin)) for s in slots.stays)
    return busy / (count * (end - begin))


class Memory:
    """Samples this process's resident memory once a second."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.wait(1.0):
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            self.samples.append(resident * page / 1e6)

    def quarters(self) -> list[int]:
        """Median of each quarter of the time, and the most, MB."""
        if len(self.samples) < 4:
            return []
        size = len(self.samples) // 4
        parts = [self.samples[i * size : (i + 1) * size] for i in range(4)]
        return [*(round(statistics.median(part)) for part in parts), round(max(self.samples))]


if __name__ == "__main__":
    main()
