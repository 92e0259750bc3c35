"""`fer-ray data ...`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import Json, result, result_json, say

app = typer.Typer(help="Import face images, or draw the built-in sample.", no_args_is_help=True)


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="Image folder, zip, tar, CSV or Parquet; also s3:// and gs://.")
    ],
    out: Annotated[Path, typer.Argument(help="The new prepared data set.")],
    size: Annotated[int, typer.Option(help="Side of the stored images, pixels.")] = 48,
    on_error: Annotated[str, typer.Option(help="stop at a faulty image, or skip it.")] = "stop",
    label_order: Annotated[
        str,
        typer.Option(help="auto, fer2013, alphabetical, or NAME,NAME,... from 0 on."),
    ] = "auto",
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER=CLASS,...", help="Classes other than the seven."),
    ] = None,
    splits: Annotated[
        str, typer.Option(help="auto, official, or TRAIN:VALIDATION:TEST such as 80:10:10.")
    ] = "auto",
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|PATTERN",
            help="Keep a group in one split: a column, or a pattern of the path with one group.",
        ),
    ] = None,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="FER+ votes (fer2013new.csv) for a CSV.")
    ] = None,
) -> None:
    """Make a prepared data set: fer-ray data import fer2013.zip data/fer2013"""
    from fer_ray import api
    from fer_ray.report.data_text import class_table

    report = api.import_data(
        source,
        out,
        size_px=size,
        on_error=on_error,
        label_order=label_order,
        classes=classes,
        splits=splits,
        group_by=group_by,
        votes=votes,
    )
    result(f"form: {report.form}")
    result(f"labels: {report.label_order}")
    result(f"splits: {report.splits}")
    for line in class_table(report.counts):
        result(line)
    result(f"training pixels: mean {report.mean:.4f}, deviation {report.std:.4f}")
    result(f"surplus duplicates: {report.surplus_duplicates:,}")
    if report.skipped:
        result(f"skipped: {report.num_skipped:,}, such as {': '.join(report.skipped[0])}")
    for note in report.notes:
        result(f"note: {note}")
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


@app.command("check")
def check_(
    data: Annotated[Path, typer.Argument(help="A prepared data set.")],
    html: Annotated[
        Path, typer.Option(help="The page; an earlier one is replaced, nothing else is.")
    ] = Path("check.html"),
    with_images: Annotated[
        bool,
        typer.Option("--with-images", help="Show faces on the page: contact sheets, faults."),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Preview the augmentation of this file (its defaults).")
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Drop training images seen in validation or test.")
    ] = False,
    drop_duplicates: Annotated[
        bool,
        typer.Option(
            "--drop-duplicates", help="Drop surplus and conflicting identical training images."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The cleaned data set.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a data set is and what is wrong with it: fer-ray data check data/fer2013"""
    from fer_ray import api
    from fer_ray.report.data_text import check_lines, clean_lines

    checked = api.check_data(
        data,
        html=html,
        with_images=with_images,
        config=config,
        drop_leaks=drop_leaks,
        drop_duplicates=drop_duplicates,
        out=out,
    )
    if as_json:
        result_json(checked.as_dict())
    else:
        for line in check_lines(checked.report):
            result(line)
        for line in clean_lines(checked.cleaned) if checked.cleaned else ():
            result(line)
    if checked.cleaned:
        say(f"cleaned data set: {checked.cleaned.path}")
    say(f"page: {html}")
