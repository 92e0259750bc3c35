"""`fer-ray tune` and `resume`: the study, the data and the trials under Ray Tune."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_ray.cluster.storage import check_shared, check_store
from fer_ray.config.advice import advice
from fer_ray.config.duration import parse_duration_s
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
from fer_ray.search.event_files import EventFiles
from fer_ray.search.fitting import fit, put_out
from fer_ray.search.interim import pack_best_so_far
from fer_ray.search.mirror import Mirror
from fer_ray.search.points import rejection
from fer_ray.search.progress import Progress
from fer_ray.search.resources import Slots, check_dashboard, check_request, plan_slots
from fer_ray.search.results import (
    RunSummary,
    clear_leftovers,
    summary_of,
    update_best,
    write_status,
    write_trials,
)
from fer_ray.search.resuming import open_interrupted
from fer_ray.search.start_from import points_of_run
from fer_ray.search.stopping import BY_COMMAND, StopWatch, signals_stop
from fer_ray.search.study import Study
from fer_ray.search.weights import pretrained_states


@dataclass(frozen=True)
class Options:
    """What the command line says beside the space.

    Attributes:
        live: print progress to stderr.
        until: seconds since the epoch; this session ends in order then.
        address: of a Ray cluster; None starts one here, or takes RAY_ADDRESS.
        tensorboard: write event files below the run's `tensorboard`.
        mirror: where the run's home is in object storage; its `run` is worked on.
    """

    live: bool = False
    until: float | None = None
    address: str | None = None
    tensorboard: bool = False
    mirror: Mirror | None = None


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
    mirror = options.mirror
    run = mirror.run if mirror is not None else RunDirectory(out.absolute())
    if mirror is not None:
        mirror.require_absent()
    run.require_absent()
    points: list[dict[str, Any]] = []
    if isinstance(space.base.search.start_from, str):
        points, lines = points_of_run(space, Path(space.base.search.start_from))
        for line in lines:
            _say(options)(line)
    states = pretrained_states(space)
    fingerprint = prepared.fingerprint if prepared else "sample"
    with _ray(space, options), _machine_faults(run):
        slots = _lay_out(space, run, options)
        facts = {"overrides": list(overrides), "working_directory": str(Path.cwd())}
        run.create("tune", space.text, fingerprint, facts)
        with run.locked(), _driven(options):
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
    mirror = options.mirror
    run = mirror.run if mirror is not None else RunDirectory(path.absolute())
    if mirror is not None:
        run.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with run.locked():
        if mirror is not None:
            mirror.require_alone()
            mirror.pull()
        space, fingerprint = open_interrupted(run, overrides)
        check_request(space.base.resources)
        states = pretrained_states(space)
        with _ray(space, options), _machine_faults(run):
            slots = _lay_out(space, run, options)
            run.stop_file.unlink(missing_ok=True)
            study = Study(run, space, fingerprint)
            clear_leftovers(study)
            if mirror is not None:
                ended = {n: live.ended is not None for n, live in study.trials.items()}
                mirror.begin_session(ended)
            with _driven(options):
                return _search(study, slots, states, options)


def _ray(space: SearchSpace, options: Options) -> contextlib.AbstractContextManager[None]:
    several = space.base.resources.per_trial.workers > 1
    return ray_session(dashboard=several, address=options.address)


def _lay_out(space: SearchSpace, run: RunDirectory, options: Options) -> Slots:
    """Find the places for the trials, on a cluster that can run them."""
    slots = plan_slots(space.base.resources, _say(options))
    check_dashboard(slots)
    if options.mirror is not None:
        check_store(options.mirror.folder)
    else:
        check_shared(run.path)
    return slots


def _driven(options: Options) -> contextlib.AbstractContextManager[None]:
    return options.mirror.driven() if options.mirror is not None else contextlib.nullcontext()


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
            f"Make room, then: fer-ray resume {_shown(run)}",
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
                if options.mirror is not None:
                    options.mirror.fetch_checkpoint(study.ranking()[:1])
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
    remedy = f"Go on: fer-ray resume {_shown(run)}"
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


def _shown(run: RunDirectory) -> str:
    if run.address is not None:
        return run.address
    with contextlib.suppress(ValueError):
        return str(run.path.relative_to(Path.cwd()))
    return str(run.path)


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
    from fer_ray.search.confirming import confirm
    from fer_ray.search.trainable import TrialSetting

    base, mirror = study.space.base, options.mirror
    deadline = _deadline(study, options)
    search_deadline = deadline
    if deadline is not None and base.confirm is not None:
        share = share_of_budget(study.space, study.asha.rungs)
        search_deadline = deadline - share * (deadline - time.time())
    setting = TrialSetting(
        run_path=mirror.folder.uri if mirror is not None else str(study.run.path),
        rungs=study.asha.rungs,
        deadline=search_deadline,
        target=base.stop.target,
        num_threads=max(1, int(slots.cpu / slots.workers)),
        data_name=source_name(base.data),
    )
    work = put_out(study, slots, states, setting, progress.say)
    events = EventFiles(study.run.tensorboard) if options.tensorboard else None
    try:
        how, fatal = fit(study, work.trainable(), slots, progress, search_deadline, events, mirror)
    finally:
        if events is not None:
            events.close()
    if base.confirm is None or how not in ("finished", "time budget", "target"):
        return how, fatal
    whole = dataclasses.replace(setting, deadline=deadline)
    confirming = dataclasses.replace(work, setting=whole)
    return confirm(study, slots, confirming, progress.say, mirror) or how, fatal


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
