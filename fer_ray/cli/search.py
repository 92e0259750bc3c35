"""`fer-ray check`, `tune`, `resume`, `stop` and `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_ray.cli.handing_over import Dashboard, Detach, dashboard_of, hand_over
from fer_ray.cli.models import say_epoch, say_trained
from fer_ray.cli.output import Address, Overrides, result, say
from fer_ray.errors import UserError
from fer_ray.store import shown

if TYPE_CHECKING:
    from fer_ray.search.results import RunSummary

By = Annotated[
    str | None,
    typer.Option(metavar="HH:MM", help="End in order then; also YYYY-MM-DD HH:MM."),
]
Tensorboard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files to RUN/tensorboard.")
]


def register(app: typer.Typer) -> None:
    app.command()(check)
    app.command()(tune)
    app.command()(resume)
    app.command()(stop)
    app.command()(schema)


def check(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml")],
    overrides: Overrides = None,
) -> None:
    """Every error of a space, or the space as a table: fer-ray check search_spaces/cnn.yaml"""
    from fer_ray import api
    from fer_ray.config.advice import advice

    checked = api.check(space, overrides or ())
    if not checked.holes:
        result(f"{space}: no holes; `fer-ray train {space}` trains it")
        return
    rows = [("address", "values", "default", "only where")]
    for hole in checked.holes:
        where = ", ".join(f"{address} = {branch}" for address, branch in hole.when)
        rows.append((hole.address, hole.describe(), _plain(hole.default), where))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        result(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
    for line in advice(checked):
        say(f"warning: {line}")


def _plain(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def tune(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml")],
    data: Annotated[str | None, typer.Option(help="A prepared data set, or sample.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Run directory, or s3://bucket/run; default runs/NAME."),
    ] = None,
    overrides: Overrides = None,
    by: By = None,
    address: Address = None,
    tensorboard: Tensorboard = False,
    detach: Detach = False,
) -> None:
    """Search a space with Ray Tune and Optuna: fer-ray tune search_spaces/quickstart.yaml"""
    from fer_ray import api

    place = out or f"runs/{space.stem}"
    if dashboard := dashboard_of(address, detach=detach):
        base = api.check(space, overrides or (), data).base  # its faults are said before it travels
        places: dict[str, str | Path | None] = {"--out": place, "--data": base.data.source}
        if isinstance(base.search.start_from, str):
            places["search.start_from"] = base.search.start_from
        hand_over(dashboard, places, detach=detach, upload=space, run=place)
    summary = api.tune(
        space,
        data=data,
        out=place,
        overrides=overrides or (),
        live=True,
        by=by,
        address=address,
        tensorboard=tensorboard,
    )
    _say_summary(summary, place)


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    overrides: Overrides = None,
    by: By = None,
    address: Address = None,
    tensorboard: Tensorboard = False,
    detach: Detach = False,
    threads: Annotated[
        int | None, typer.Option(help="Of torch, for a training; default all cores.")
    ] = None,
) -> None:
    """Go on with a search or training that was killed or stopped: fer-ray resume runs/cnn"""
    from fer_ray import api

    if dashboard := dashboard_of(address, detach=detach):
        hand_over(dashboard, {"RUN": run}, detach=detach, run=run)
    if api.verb_of(run) == "train":
        if overrides or by is not None or tensorboard:
            raise UserError(
                f"{run} is a run of one training: it goes on as it began",
                "Leave -s, --by and --tensorboard out.",
            )
        done = api.resume_train(
            run, num_threads=threads, address=address, on_epoch=say_epoch, say=say
        )
        say_trained(done)
        return
    summary = api.resume(
        run,
        overrides=overrides or (),
        live=True,
        by=by,
        address=address,
        tensorboard=tensorboard,
    )
    _say_summary(summary, run)


def stop(run: Annotated[str, typer.Argument(metavar="RUN")], address: Dashboard = None) -> None:
    """End a search in order, from another terminal: fer-ray stop runs/cnn"""
    from fer_ray import api

    if dashboard := dashboard_of(address):
        hand_over(dashboard, {"RUN": run})
    api.stop(run)
    say(f"{run} ends after the epochs under way; go on with it: fer-ray resume {run}")


def _say_summary(summary: RunSummary, place: str) -> None:
    place = shown(place)
    for line in summary.lines():
        result(line)
    say(f"report: {place}/report.html")
    say("next:")
    source = summary.data_source
    if source != "sample":
        say(f"  fer-ray evaluate {place} --data {source}")
    say(f"  fer-ray serve --bundle {place}")
    say(f"  fer-ray score FOLDER --out scores --bundle {place}")


def schema() -> None:
    """JSON Schema of the YAML, for editors: fer-ray schema > search-space.schema.json"""
    import json

    from fer_ray.config.json_schema import space_schema

    result(json.dumps(space_schema(), indent=2))
