"""The verbs that search a space: what it will cost, start, stop, go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.api.runs import verb_of
from fer_ray.api.spaces import check, with_data
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.search.plan import Plan
    from fer_ray.search.results import RunSummary
    from fer_ray.search.tuning import Options


def plan(
    space: str | Path,
    *,
    data: str | None = None,
    out: str | Path = "runs",
    slots: int | None = None,
    probe: bool = True,
    overrides: Sequence[str] = (),
) -> Plan:
    """What a search will do and cost: rungs, time, disk, samples, warnings.

    Args:
        space: a YAML file with holes.
        data: replaces the file's `data.source`.
        out: where the run would be; nothing is written.
        slots: trials at once; what this machine offers where it is None.
        probe: measure the cheapest and the dearest configuration, a few steps each.
        overrides: `address=value` each.

    Raises:
        ConfigError: the space is wrong.
        DataError: the data are not there.
        FerRayError: no configuration of this space may be trained.
    """
    from fer_ray.data.loading import source_of
    from fer_ray.search import plan as planning
    from fer_ray.search.probe import probe as measure

    checked = check(space, overrides, data)
    if slots is not None and slots < 1:
        raise UserError(f"slots must be at least 1, but got {slots}")
    if probe:
        source_of(checked.base.data)
    return planning.make_plan(checked, Path(out), slots=slots, probe=measure if probe else None)


def tune(
    space: str | Path,
    *,
    data: str | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    live: bool = False,
    by: str | None = None,
    address: str | None = None,
    tensorboard: bool = False,
) -> RunSummary:
    """Search a space with Ray Tune and Optuna; the winner becomes a bundle at `out`/best.

    Args:
        space: a YAML file with holes.
        data: replaces the file's `data.source`.
        out: the new run directory; or an address in object storage (`s3://bucket/run`).
        overrides: `address=value` each.
        live: print progress to stderr.
        by: `18:00` or `2026-05-01 18:00`: this session ends in order then.
        address: of a Ray cluster; None starts one here, or takes RAY_ADDRESS.
        tensorboard: write event files to `out`/tensorboard, a folder a trial.

    Returns:
        how it ended; its `trials` is a pandas DataFrame.

    Raises:
        ConfigError: the space is wrong.
        NothingSucceededError: no trial finished an epoch.
        InterruptedRunError: by Ctrl-C; what has ended is kept.
        UnfinishedError: stopped, or ended by a fault of the machine; `resume` goes on.
    """
    from fer_ray.search.tuning import Options, parse_until, run_tuning

    checked = check(space, overrides, data)
    until = parse_until(by) if by is not None else None
    given = tuple(with_data(overrides, data))
    options = Options(live, until, address, tensorboard)
    return _searching(out, options, lambda place, how: run_tuning(checked, place, given, how))


def resume(
    run: str | Path,
    *,
    overrides: Sequence[str] = (),
    live: bool = False,
    by: str | None = None,
    address: str | None = None,
    tensorboard: bool = False,
) -> RunSummary:
    """Go on with a search that was killed, stopped or has ended; it needs nothing but the run.

    Args:
        run: its directory.
        overrides: `search.trials`, `stop`, `resources`, `keep` and `confirm` may change.
        live, by, address, tensorboard: as for `tune`.

    Raises:
        UserError: no such run, its data or space have changed, or another process works on it.
        Otherwise as `tune`.
    """
    from fer_ray.search.tuning import Options, parse_until, resume_tuning

    if verb_of(run) != "tune":
        raise UserError(f"{run} is a run of one training", "Use resume_train.")
    until = parse_until(by) if by is not None else None
    options = Options(live, until, address, tensorboard)
    return _searching(run, options, lambda place, how: resume_tuning(place, tuple(overrides), how))


def _searching(
    run: str | Path, options: Options, work: Callable[[Path, Options], RunSummary]
) -> RunSummary:
    """Work on a run where it lies, or on its mirror if that is object storage; leave its page."""
    from fer_ray.report.search_page import with_search_page
    from fer_ray.search.mirror import Mirror, page_put_out
    from fer_ray.store import is_remote

    mirror = Mirror(str(run)) if is_remote(str(run)) else None
    place = mirror.run.path if mirror is not None else Path(run)
    options = replace(options, mirror=mirror)
    with page_put_out(mirror):
        return with_search_page(place, lambda: work(place, options))


def stop(run: str | Path) -> None:
    """Ask the search that works on a run to end in order: after the epochs under way.

    Raises:
        UserError: no such run, or nothing works on it.
    """
    from fer_ray.runs import open_run
    from fer_ray.search.mirror import request_remote_stop
    from fer_ray.search.stopping import BY_COMMAND, request_stop
    from fer_ray.store import is_remote

    if is_remote(str(run)):
        request_remote_stop(str(run), BY_COMMAND)
        return
    directory = open_run(Path(run))
    held = directory.is_worked_on()
    if not held and (held is False or not directory.lock.is_file()):
        raise UserError(f"nothing works on {run}", f"Go on with it: fer-ray resume {run}")
    request_stop(directory, BY_COMMAND)
