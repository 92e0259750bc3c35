"""`fer-ray tune` and `resume`: the study, the data and the trials under Ray Tune."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray.cluster.storage import check_shared
from fer_ray.config.advice import advice
from fer_ray.config.schema import parse_duration_s
from fer_ray.config.space import SearchSpace
from fer_ray.data.loading import source_name, source_of
from fer_ray.errors import (
    InterruptedRunError,
    NothingSucceededError,
    UnfinishedError,
    UserError,
)
from fer_ray.ray_session import ray_session
from fer_ray.runs import RunDirectory
from fer_ray.search.confirm import share_of_budget
from fer_ray.search.interim import pack_best_so_far
from fer_ray.search.live import LiveTrial
from fer_ray.search.progress import Progress
from fer_ray.search.resources import Slots, check_request, plan_slots
from fer_ray.search.results import (
    RunSummary,
    clear_leftovers,
    drop_checkpoint,
    summary_of,
    update_best,
    write_status,
    write_trials,
)
from fer_ray.search.resuming import open_interrupted
from fer_ray.search.start_from import points_of_run
from fer_ray.search.stopping import BY_COMMAND, StopWatch, signals_stop
from fer_ray.search.study import Study, rejection
from fer_ray.search.weights import pretrained_states

_STATUS_EVERY_S = 1.0
_TABLE_EVERY_S = 10.0
_MAX_AHEAD = 16
"""Trials handed to Tune before they have a slot, at most; each knows a little less."""


@dataclass(frozen=True)
class Options:
    """What the command line says beside the space.

    Attributes:
        live: print progress to stderr.
        until: seconds since the epoch; this session ends in order then.
        address: of a Ray cluster; None starts one here, or takes RAY_ADDRESS.
    """

    live: bool = False
    until: float | None = None
    address: str | None = None


def run_tuning(
    space: SearchSpace, out: Path, overrides: tuple[str, ...], options: Options
) -> RunSummary:
    """Run a search to its end.

    Args:
        space: checked.
        out: the new run directory.
        overrides: that made the space of its file; noted for `resume`.
        options: of this session.

    Raises:
        UserError: data or weights are missing, the defaults break `limits`, or the cluster cannot
            run a trial; nothing is written then.
        NothingSucceededError: no trial finished an epoch.
        InterruptedRunError: by Ctrl-C; what has ended is kept.
        UnfinishedError: ended otherwise with work undone, resumable.
    """
    prepared = source_of(space.base.data)
    check_request(space.base.resources)
    why = rejection(space, space.complete({}))
    if why is not None:
        raise UserError(
            f"trial 0, the space's defaults, would not be trained: {why}",
            "Give the holes other defaults, or widen `limits`.",
        )
    run = RunDirectory(out.absolute())
    run.require_absent()
    points: list[dict[str, Any]] = []
    if isinstance(space.base.search.start_from, str):
        points, lines = points_of_run(space, Path(space.base.search.start_from))
        for line in lines:
            _say(options)(line)
    states = pretrained_states(space)
    fingerprint = prepared.fingerprint if prepared else "sample"
    with _ray(space, options), _machine_faults(run):
        slots = plan_slots(space.base.resources, _say(options))
        check_shared(run.path)
        facts = {"overrides": list(overrides), "working_directory": str(Path.cwd())}
        run.create("tune", space.text, fingerprint, facts)
        with run.locked():
            study = Study(run, space, fingerprint, start_points=points)
            return _search(study, slots, states, options)


def resume_tuning(path: Path, overrides: tuple[str, ...], options: Options) -> RunSummary:
    """Go on with a search that was killed, stopped or has ended.

    Args:
        path: the run.
        overrides: `search.trials`, `stop.*`, `resources.*`, `keep.*` and `confirm.*` may change.
        options: of this session.

    Raises:
        UserError: no such run, data or space have changed, or another process works on it.
        Otherwise as `run_tuning`.
    """
    run = RunDirectory(path.absolute())
    with run.locked():
        space, fingerprint = open_interrupted(run, overrides)
        check_request(space.base.resources)
        states = pretrained_states(space)
        with _ray(space, options), _machine_faults(run):
            slots = plan_slots(space.base.resources, _say(options))
            check_shared(run.path)
            run.stop_file.unlink(missing_ok=True)
            study = Study(run, space, fingerprint)
            clear_leftovers(study)
            return _search(study, slots, states, options)


def _ray(space: SearchSpace, options: Options) -> contextlib.AbstractContextManager[None]:
    several = space.base.resources.per_trial.workers > 1
    return ray_session(dashboard=several, address=options.address)


@contextlib.contextmanager
def _machine_faults(run: RunDirectory) -> Iterator[None]:
    """A full or broken disk is no traceback: what is written so far can be gone on with."""
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (OSError, StorageInternalError) as error:
        cause = error.__cause__ or error
        raise UnfinishedError(
            f"ended by a fault of the machine: {cause}",
            f"Make room, then: fer-ray resume {_shown(run.path)}",
        ) from error


def _say(options: Options) -> Callable[[str], None]:
    import sys

    def say(text: str) -> None:
        if options.live:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    return say


def _search(
    study: Study, slots: Slots, states: dict[str, dict[str, Any]], options: Options
) -> RunSummary:
    """One session of work on a study."""
    run = study.run
    progress = Progress(study, live=options.live)
    for line in advice(study.space, slots.count):
        progress.say(f"warning: {line}")
    study.open_session(slots.count)
    how = "failed"
    fatal: BaseException | str | None = None
    try:
        with signals_stop(run, progress.say):
            how, fatal = _fit(study, slots, states, progress, options)
            update_best(study)
            if how == "stopped" and StopWatch(run).by != BY_COMMAND:
                how = "interrupted"
            if how in ("stopped", "interrupted"):
                pack_best_so_far(study)
    except KeyboardInterrupt:
        how = "interrupted"
    finally:
        progress.close()
        _close(study, how, fatal)
    return _outcome(study, how, fatal)


def _close(study: Study, how: str, fatal: BaseException | str | None) -> None:
    """Leave everything as it is for who reads the run; a full disk may hinder that."""
    try:
        study.close_session(how)
        study.close()
        write_trials(study)
        write_status(study)
    except Exception:
        if fatal is None:
            raise


def _outcome(study: Study, how: str, fatal: BaseException | str | None) -> RunSummary:
    run = study.run
    summary = summary_of(study, study.elapsed_s())
    best = f"the best so far is {run.best}" if run.best.exists() else "no trial left a bundle yet"
    remedy = f"Go on: fer-ray resume {_shown(run.path)}"
    unfinished = [live.number for live in study.unfinished]
    left = study.num_trials - len(study.trials)
    undone = f"trials {unfinished} unfinished, {max(0, left)} not begun; {best}"
    if fatal is not None:
        raise UnfinishedError(f"ended by a fault of the machine: {fatal}\n{undone}", remedy)
    if how == "interrupted":
        raise InterruptedRunError(f"interrupted, {undone}", remedy)
    if how == "stopped":
        raise UnfinishedError(f"stopped as asked, {undone}", remedy)
    if unfinished:
        raise UnfinishedError(f"ended with {undone}", remedy)
    if summary is None:
        raise NothingSucceededError(
            f"none of {len(study.trials)} trials succeeded: "
            f"{next((t.error for t in study.trials.values() if t.error), 'no reason given')}",
            f"See {run.path / 'trials'} for the errors.",
        )
    return summary


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _deadline(study: Study, options: Options) -> float | None:
    """When this session ends: what is left of the time budget, or `--by`."""
    budget = study.space.base.stop.time_budget
    ends = [] if options.until is None else [options.until]
    if budget is not None:
        before = study.elapsed_s()
        ends.append(time.time() + parse_duration_s(budget) - before)
    return min(ends, default=None)


def _fit(
    study: Study,
    slots: Slots,
    states: dict[str, dict[str, Any]],
    progress: Progress,
    options: Options,
) -> tuple[str, BaseException | str | None]:
    """Put the data out and run the trials; gives how it ended."""
    import ray
    from ray import tune

    from fer_ray.data.ray_data import put_training_data
    from fer_ray.search.confirming import confirm
    from fer_ray.search.trainable import TrialSetting, train_trial

    base = study.space.base
    deadline = _deadline(study, options)
    search_deadline = deadline
    if deadline is not None and base.confirm is not None:
        share = share_of_budget(study.space, study.asha.rungs)
        search_deadline = deadline - share * (deadline - time.time())
    setting = TrialSetting(
        run_path=str(study.run.path),
        rungs=study.asha.rungs,
        deadline=search_deadline,
        target=base.stop.target,
        num_threads=max(1, int(slots.cpu)),
        data_name=source_name(base.data),
    )
    data, shared_states = put_training_data(base.data, progress.say), ray.put(states)
    trainable = tune.with_parameters(train_trial, data=data, states=shared_states, setting=setting)
    how, fatal = fit(study, trainable, slots, progress, search_deadline)
    if base.confirm is None or how not in ("finished", "time budget", "target"):
        return how, fatal
    whole = dataclasses.replace(setting, deadline=deadline)
    return confirm(study, slots, data, shared_states, whole, progress.say) or how, fatal


def fit(
    study: Study,
    trainable: Callable[..., None],
    slots: Slots,
    progress: Progress,
    deadline: float | None,
) -> tuple[str, BaseException | str | None]:
    """Run trials of any trainable that reports as `train_trial` does, until the study is done.

    Returns:
        how it ended (docs/design.md, `sessions`), and what broke the machine, or None.
    """
    from ray import tune

    from fer_ray.search.ray_adapters import (
        MAX_FAILURES,
        StudyBridge,
        StudyCallback,
        StudyScheduler,
        StudySearcher,
    )

    written = {"status": 0.0, "table": 0.0}

    def on_tick() -> None:
        now = time.monotonic()
        if now - written["status"] >= _STATUS_EVERY_S:
            written["status"] = now
            write_status(study)
        if now - written["table"] >= _TABLE_EVERY_S:
            written["table"] = now
            write_trials(study)

    def on_change(trial: LiveTrial) -> None:
        progress.on_change(trial)
        if trial.ended is not None:
            drop_checkpoint(study.run, trial)
            update_best(study)

    bridge = StudyBridge(
        study, on_change, on_tick=on_tick, deadline=deadline, max_concurrent=slots.limit
    )
    if study.is_done():
        return "finished", None
    # A trial that ends hands its process on only where another one waits already.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, min(_MAX_AHEAD, slots.count // 2)))
    name = f"session-{len(study.sessions)}"
    shutil.rmtree(study.run.ray, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": slots.cpu, "gpu": slots.gpu}),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(bridge),
            scheduler=StudyScheduler(bridge),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(study.run.ray),
            name=name,
            verbose=0,
            callbacks=[StudyCallback(bridge)],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    tuner.fit()
    how = bridge.why_over or "finished"
    if how in ("time budget", "target"):
        # Left by an earlier session, and no slot was free for them before the end.
        for live in study.unfinished:
            study.finish(live.number, "target elsewhere" if how == "target" else how)
    if study.is_done() and bridge.fatal is None:
        how = "finished"
    return how, bridge.fatal


def parse_until(text: str) -> float:
    """Read `18:00` (the next such time) or `2026-05-01 18:00`, local time.

    Returns:
        seconds since the epoch.

    Raises:
        UserError: another form, or the past.
    """
    now = datetime.datetime.now()
    for form in ("%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"):
        try:
            read = datetime.datetime.strptime(text, form)
        except ValueError:
            continue
        if form == "%H:%M":
            read = datetime.datetime.combine(now.date(), read.time())
            if read <= now:
                read += datetime.timedelta(days=1)
        if read <= now:
            raise UserError(f"--by {text} lies in the past")
        return read.timestamp()
    raise UserError(f"--by wants HH:MM or YYYY-MM-DD HH:MM, but got {text!r}")
