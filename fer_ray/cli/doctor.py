"""`fer-ray doctor`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.handing_over import dashboard_of, hand_over
from fer_ray.cli.output import Address, Json, result, result_json


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    address: Address = None,
    storage: Annotated[
        Path | None, typer.Option(help="Where runs shall lie: does every node see it?")
    ] = None,
    as_json: Json = False,
) -> None:
    """What this machine and cluster offer; exit code 1 if anything is wrong: fer-ray doctor"""
    from fer_ray import api

    if dashboard := dashboard_of(address):
        hand_over(dashboard, {"--storage": storage})
    found = api.doctor(address or os.environ.get("RAY_ADDRESS"), storage=storage)
    if as_json:
        result_json(found.as_dict())
    else:
        for line in found.lines():
            result(line)
    if found.faults:
        raise typer.Exit(1)
