"""TensorBoard event files of a search, for who watches with TensorBoard: `tune --tensorboard`.

One folder a trial, so that TensorBoard shows trials as its runs. They are a copy of the curves in
`study.db`, written as epochs are told; nothing reads them back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.search.live import LiveTrial

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

SCALARS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_macro_f1",
    "val_balanced_accuracy",
    "objective",
    "best_objective",
    "lr",
)


class EventFiles:
    """Writers of the trials under way.

    Args:
        folder: a trial's events go to `<folder>/<number>/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, SummaryWriter] = {}
        self._told: dict[int, int] = {}

    def on_change(self, trial: LiveTrial) -> None:
        """Write the epochs of a trial that are not yet written; at its end close its file.

        A session writes those that it is told of: a resumed trial goes on in a file beside the
        earlier one, and TensorBoard shows both as one curve.
        """
        from tensorboardX import SummaryWriter

        number = trial.number
        if number not in self._told:
            self._told[number] = trial.epoch
            # Two sessions within a second would otherwise have one name.
            suffix = f".{time.time_ns()}"
            place = str(self._folder / str(number))
            self._writers[number] = SummaryWriter(place, filename_suffix=suffix)
            rows = [f"{address} | {value}" for address, value in trial.asked.params.items()]
            table = "\n".join(["address | value", "--- | ---", *rows])
            self._writers[number].add_text("params", table, trial.epoch)
        writer = self._writers.get(number)
        if writer is None:
            return
        for row in trial.curve:
            if row["epoch"] <= self._told[number] or row["diverged"]:
                continue
            for name in SCALARS:
                writer.add_scalar(name, row[name], row["epoch"], walltime=row.get("time"))
        self._told[number] = trial.epoch
        writer.flush()
        if trial.ended is not None:
            self._writers.pop(number).close()

    def close(self) -> None:
        """The session ends: what its writers still hold is written."""
        while self._writers:
            self._writers.popitem()[1].close()
