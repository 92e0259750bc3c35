"""`fer-ray doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import Json, result, result_json


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    address: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT", help="Of a Ray cluster, to look at all its nodes."),
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(help="Where runs shall lie: does every node see it?")
    ] = None,
    as_json: Json = False,
) -> None:
    """What this machine and cluster offer, and what is wrong: fer-ray doctor --address auto"""
    from fer_ray import api

    found = api.doctor(address, storage=storage)
    if as_json:
        result_json(found.as_dict())
    else:
        for line in found.lines():
            result(line)
    if found.faults:
        raise typer.Exit(1)
