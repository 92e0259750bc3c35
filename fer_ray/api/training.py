"""The verbs that train one configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.api.spaces import with_data
from fer_ray.config.space import load_config
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.training.epoch_result import EpochResult
    from fer_ray.training_run import TrainReport


def train(
    config: str | Path,
    *,
    data: str | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    num_threads: int | None = None,
    num_workers: int = 1,
    address: str | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Train one configuration and write a run with its bundle.

    Args:
        config: a file without holes.
        data: replaces the file's `data.source`.
        out: the new run directory.
        overrides: `address=value` each.
        num_threads: of torch; all cores where it is None, shared by the workers.
        num_workers: processes that train together, through Ray Train.
        address: of a Ray cluster, which then trains, also with one worker.
        on_epoch: told of each epoch as it ends; with several workers from a thread.
        say: told how the data are held.

    Raises:
        ConfigError: the file is wrong or has holes.
        DataError: the data are not there.
        FerRayError: the training diverged before its first good epoch.
        InterruptedRunError: by Ctrl-C; see `resume_train`.
    """
    from fer_ray.report.train_page import write_train_page
    from fer_ray.runs import RunDirectory
    from fer_ray.training_run import train_run

    resolved = load_config(Path(config), with_data(overrides, data))
    if num_workers < 1:
        raise UserError(f"workers must be at least 1, but got {num_workers}")
    report = train_run(
        resolved,
        Path(config).read_text(encoding="utf-8"),
        Path(out),
        num_threads=num_threads or os.cpu_count() or 1,
        num_workers=num_workers,
        address=address,
        on_epoch=on_epoch or (lambda result: None),
        say=say,
    )
    write_train_page(RunDirectory(report.path))
    return report


def resume_train(
    run: str | Path,
    *,
    num_threads: int | None = None,
    address: str | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Go on with a run of `train` that was interrupted or killed, from its last checkpoint.

    Args:
        run: its directory.
        num_threads, address, on_epoch, say: see `train`.

    Raises:
        UserError: no run of `train`, a finished one, or its config or data were changed.
        FerRayError: see `train`.
    """
    from fer_ray.report.train_page import write_train_page
    from fer_ray.runs import RunDirectory
    from fer_ray.training_run import resume_train as resume

    report = resume(
        Path(run),
        num_threads=num_threads or os.cpu_count() or 1,
        address=address,
        on_epoch=on_epoch or (lambda result: None),
        say=say,
    )
    write_train_page(RunDirectory(report.path))
    return report
