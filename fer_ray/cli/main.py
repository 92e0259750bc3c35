"""The command line: parse, call `fer_ray.api`, print. Results to stdout, talk to stderr."""

from __future__ import annotations

import sys

import typer

from fer_ray.cli import (
    data,
    doctor,
    ensembles,
    evaluating,
    exporting,
    models,
    planning,
    scoring,
    search,
    serving,
    watching,
)
from fer_ray.errors import FerRayError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="fer-ray",
    help="Facial expression classifiers: search, train, evaluate, score folders, serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
for module in (
    search,
    planning,
    watching,
    models,
    evaluating,
    ensembles,
    exporting,
    scoring,
    serving,
    doctor,
):
    module.register(app)


def main() -> None:
    """Entry point: every error of ours is a message and an exit code, never a traceback."""
    try:
        # Outside standalone mode Typer gives back the code of `typer.Exit` and of Ctrl-C.
        code = app(standalone_mode=False)
    except FerRayError as error:
        typer.echo(f"fer-ray: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("fer-ray: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "show"):
            error.show()
            sys.exit(2)
        raise
    if isinstance(code, int) and code != 0:
        if code == INTERRUPTED:
            typer.echo("fer-ray: interrupted", err=True)
        sys.exit(code)
