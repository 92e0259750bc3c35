"""`fer-ray ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import Json, percent, result, result_json, say


def register(app: typer.Typer) -> None:
    app.command()(ensemble)


def ensemble(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE|RUN...", help="2 to 16.")],
    out: Annotated[Path, typer.Option(help="The new bundle's directory.")],
    name: Annotated[str, typer.Option(help="Of the ensemble.")] = "ensemble",
    data: Annotated[
        Path | None,
        typer.Option(help="A prepared data set: fits temperature and threshold on validation."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; default all cores.")] = None,
    json: Json = False,
) -> None:
    """One bundle of several, by soft vote: fer-ray ensemble runs/a runs/b --out runs/vote"""
    from fer_ray import api

    made = api.ensemble(bundles, out, name=name, data=data, num_threads=threads)
    for member in made.members:
        say(f"member: {member.title}")
    figures = made.contents.metrics.get("validation")
    if json:
        result_json({"path": str(out), "bundle_id": made.id, "validation": figures})
        return
    result(f"bundle {made.id[:12]} at {out}")
    if figures is None:
        say("its temperature is 1 and no answer is marked uncertain: fit both with")
        say(f"  fer-ray ensemble {' '.join(bundles)} --out ANOTHER --data DATA")
    else:
        low, high = figures["accuracy_interval"]
        result(
            f"validation accuracy {percent(figures['accuracy'])} "
            f"(95 %: {percent(low)} to {percent(high)}; {figures['count']:,} images)"
        )
