"""`--address http://...` and `--detach`: the same command, run by the cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fer_ray.cli.output import result, say
from fer_ray.errors import UserError

Detach = Annotated[
    bool, typer.Option("--detach", help="With --address http://...: return once it runs there.")
]
Dashboard = Annotated[
    str | None, typer.Option(metavar="URL", help="Of a cluster's dashboard; RUN lies there.")
]


def dashboard_of(address: str | None, *, detach: bool = False) -> str | None:
    """The dashboard that is to run this command; None where it runs here.

    Args:
        address: as given; RAY_ADDRESS where it is None.
        detach: as given.

    Raises:
        UserError: `detach` without a dashboard.
    """
    from fer_ray.cluster.jobs import is_dashboard

    place = address or os.environ.get("RAY_ADDRESS")
    if is_dashboard(place):
        return place
    if detach:
        raise UserError(
            "--detach hands the command to a cluster, and no dashboard is named",
            "Add --address http://HEAD:8265; or start it in the background of this machine.",
        )
    return None


def hand_over(
    dashboard: str,
    places: dict[str, str | Path | None],
    *,
    detach: bool = False,
    upload: Path | None = None,
    run: str | Path | None = None,
) -> NoReturn:
    """Let the cluster run this command, and exit with its code.

    Args:
        dashboard: its URL.
        places: option -> path as the head must see it; None stands for an option left out.
        detach: exit once the job is there.
        upload: a file of this machine that travels along.
        run: the directory to watch afterwards.

    Raises:
        UserError: a relative path, or nobody answers.
        FerRayError: the job did not run.
    """
    from fer_ray.cluster.jobs import Command, check_command, follow, submit, words_to_hand_over

    named = tuple((name, str(value)) for name, value in places.items() if value is not None)
    command = Command(words_to_hand_over(sys.argv[1:]), upload, named)
    check_command(command)
    job = submit(dashboard, command)
    if detach:
        result(job)
        say(f"job {job} runs on the cluster at {dashboard}, and goes on without this terminal")
        if run is not None:
            say(f"  fer-ray status {run} --address {dashboard}")
            say(f"  fer-ray stop {run} --address {dashboard}")
        raise typer.Exit(0)
    try:
        code = follow(dashboard, job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        say(f"\njob {job} goes on at {dashboard}; only this terminal stopped following it")
        if run is not None:
            say(f"  to end it: fer-ray stop {run} --address {dashboard}")
        raise
    raise typer.Exit(code)
