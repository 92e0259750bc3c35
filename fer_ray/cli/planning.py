"""`fer-ray plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import Json, Overrides, result, result_json


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml")],
    data: Annotated[str | None, typer.Option(help="A prepared data set, or sample.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the run would be.")] = None,
    slots: Annotated[
        int | None, typer.Option(help="Trials at once; default: what this machine offers.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Measure the cheapest and the dearest.")
    ] = True,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Rungs, time and disk before anything is spent: fer-ray plan search_spaces/cnn.yaml"""
    from fer_ray import api

    made = api.plan(
        space,
        data=data,
        out=out or Path("runs") / space.stem,
        slots=slots,
        probe=probe,
        overrides=overrides or (),
    )
    if as_json:
        result_json(made.as_dict())
        return
    for line in made.lines():
        result(line)
