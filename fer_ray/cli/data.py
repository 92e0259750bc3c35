"""`fer-ray data ...`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import result, say

app = typer.Typer(help="Import face images, or draw the built-in sample.", no_args_is_help=True)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="FER2013's image-folder zip, or the folder.")],
    out: Annotated[Path, typer.Argument(help="The new prepared data set.")],
    size: Annotated[int, typer.Option(help="Side of the stored images, pixels.")] = 48,
    on_error: Annotated[str, typer.Option(help="stop at a corrupt image, or skip it.")] = "stop",
) -> None:
    """Make a prepared data set: fer-ray data import fer2013.zip data/fer2013"""
    from fer_ray import api
    from fer_ray.data.importing import table_text

    report = api.import_data(source, out, size_px=size, on_error=on_error)
    for line in table_text(report.counts):
        result(line)
    result(f"training pixels: mean {report.mean:.4f}, deviation {report.std:.4f}")
    result(f"surplus duplicates: {report.surplus_duplicates:,}")
    if report.skipped:
        result(f"skipped: {len(report.skipped):,}, such as {': '.join(report.skipped[0])}")
    result(f"verdict: {report.verdict}")
    say(f"prepared data set: {report.path}")


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    count: Annotated[int, typer.Option(help="Faces to draw.")] = 3000,
    seed: Annotated[int, typer.Option(help="The same seed draws the same faces.")] = 0,
) -> None:
    """Draw synthetic faces into train/ and test/ folders: fer-ray data sample faces"""
    from fer_ray import api

    api.sample_data(out, count=count, seed=seed)
    say(f"{count:,} synthetic faces in {out}")
