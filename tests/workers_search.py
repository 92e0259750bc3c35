"""A search whose trials are trained by two workers each, on a Ray that outlives it.

    python -m tests.workers_search FOLDER search | resume

The last line of stdout is one JSON document.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

SPACE = """\
version: 1
name: workers
data: {source: sample, image_size: 24, crop: 20}
model: {cnn: {channels: [4, 8], convs_per_block: 1}}
train:
  epochs: 3
  batch_size: 300
  precision: fp32
  ema: null
  optimizer: {sgd: {lr: {log: [1.0e-7, 1.0e-1], default: 5.0e-2}}}
  schedule: {constant: {}}
search: {trials: 2, start_from: [{train.optimizer.sgd.lr: 1.0e-7}]}
scheduler: {asha: {grace_epochs: 1, reduction: 2}}
resources: {per_trial: {workers: 2}}
"""
LONG = ["train.epochs=60", "scheduler.asha.grace_epochs=20"]


def places_taken() -> list[str]:
    """Placement groups that hold or want places."""
    import ray.util

    table = ray.util.placement_group_table()
    return [entry["state"] for entry in table.values() if entry["state"] != "REMOVED"]


def wait_until_free(seconds: float = 20.0) -> list[str]:
    ends = time.monotonic() + seconds
    while places_taken() and time.monotonic() < ends:
        time.sleep(0.2)
    return places_taken()


def stop_when_training(run: Path) -> None:
    """Ask a search to stop once its first trial has told of an epoch."""
    from fer_ray import api
    from fer_ray.errors import UserError

    while True:
        time.sleep(0.2)
        try:
            if api.open_run(run).trials[0].epoch >= 1:
                return api.stop(run)
        except (UserError, IndexError):
            continue


def search(folder: Path, kind: str) -> dict[str, Any]:
    from fer_ray import api
    from fer_ray.errors import UnfinishedError

    space, run = folder / "workers.yaml", folder / "run"
    space.write_text(SPACE)
    found: dict[str, Any] = {}
    if kind == "search":
        api.tune(space, out=run)
    else:
        threading.Thread(target=stop_when_training, args=(run,), daemon=True).start()
        try:
            api.tune(space, out=run, overrides=LONG)
        except UnfinishedError as error:
            found["stopped"] = error.message
        found["left"] = wait_until_free()
        api.resume(run)
    return {**found, "after": wait_until_free()}


if __name__ == "__main__":
    from fer_ray.ray_session import ray_session

    with ray_session(dashboard=True):
        print(json.dumps(search(Path(sys.argv[1]), sys.argv[2])))
