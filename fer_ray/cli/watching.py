"""`fer-ray status` and `report`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fer_ray.cli.handing_over import Dashboard, dashboard_of, hand_over
from fer_ray.cli.output import Json, result, result_json, say

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A search's directory, or its address (s3://...).")
]


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(report)


def status(
    run: Run,
    why: Annotated[
        int | None,
        typer.Option(metavar="TRIAL", help="What it changed, its curve, and what ended it."),
    ] = None,
    address: Dashboard = None,
    as_json: Json = False,
) -> None:
    """What runs, what is best, what failed, from any terminal: fer-ray status runs/cnn"""
    from fer_ray import api
    from fer_ray.search.watching import status_of, why_of

    if dashboard := dashboard_of(address):
        hand_over(dashboard, {"RUN": run})
    history = api.open_run(run)
    if why is None:
        found = status_of(history)
        if as_json:
            result_json(found.as_dict())
            return
        lines = found.lines()
    else:
        reason = why_of(history, why)
        if as_json:
            result_json(reason.as_dict())
            return
        lines = reason.lines(unicode=(sys.stdout.encoding or "").lower().startswith("utf"))
    for line in lines:
        result(line)


def report(run: Run) -> None:
    """One offline page of a search or training, RUN/report.html: fer-ray report runs/cnn"""
    from fer_ray import api

    say(f"page: {api.report(run)}")
