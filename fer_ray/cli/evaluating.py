"""`fer-ray evaluate`, `calibrate`, `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import (
    Json,
    Precision,
    Runtime,
    Views,
    result,
    result_json,
    say,
    say_bundle,
    say_predictor,
)

Data = Annotated[Path, typer.Option(help="A prepared data set.")]
Split = Annotated[str, typer.Option(help="validation or test (each opening is recorded).")]
Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Also one offline page.")]
WithImages = Annotated[
    bool, typer.Option("--with-images", help="Show faces on the page: mistakes, worst first.")
]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command()(calibrate)
    app.command()(compare)


def evaluate(
    bundle: Annotated[str | None, typer.Argument(metavar="[BUNDLE|RUN]")] = None,
    data: Data = Path("data/fer2013"),
    split: Split = "validation",
    views: Annotated[
        str,
        typer.Option(
            help="Beside the single view: flip, ten_crop, or single for none.", metavar="V"
        ),
    ] = "flip",
    group_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Figures a group of this column too.")
    ] = None,
    html: Html = None,
    with_images: WithImages = False,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    json: Json = False,
) -> None:
    """Every figure of a bundle on a split: fer-ray evaluate runs/cnn --data data/fer2013"""
    from fer_ray import api
    from fer_ray.report.evaluation_text import evaluation_lines

    predictor = api.load_predictor(
        bundle,
        precision=precision,
        runtime=runtime,
        expected_images=api.count_images(data, split),
    )
    say_predictor(predictor)
    evaluation = api.evaluate(
        predictor,
        data,
        split=split,
        views=views,
        group_column=group_column,
        html=html,
        with_images=with_images,
    )
    if json:
        result_json(evaluation.as_dict())
    else:
        for line in evaluation_lines(evaluation):
            result(line)
    if bundle is not None and (kept := api.keep_evaluation(bundle, evaluation)):
        say(f"kept: {kept}")
    if html is not None:
        say(f"page: {html}")


def calibrate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE|RUN")],
    out: Annotated[Path, typer.Option(help="The new bundle.")],
    data: Data = Path("data/fer2013"),
    target_precision: Annotated[
        float, typer.Option(metavar="P", help="Wanted of the answers that are sure, 0..1.")
    ] = 0.9,
    json: Json = False,
) -> None:
    """Another bundle, calibrated anew: fer-ray calibrate runs/cnn --data data/fer2013 --out b2"""
    from fer_ray import api
    from fer_ray.report.evaluation_text import calibration_lines

    loaded = api.load_bundle(bundle)
    say_bundle(loaded)
    report = api.calibrate(loaded, data, out, target_precision=target_precision)
    if json:
        result_json(report.as_dict())
        return
    for line in calibration_lines(report.document):
        result(line)
    result(f"bundle {report.document['new_bundle']['id'][:12]} at {report.path}")


def compare(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    data: Data = Path("data/fer2013"),
    split: Split = "validation",
    views: Views = "single",
    html: Html = None,
    with_images: WithImages = False,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    json: Json = False,
) -> None:
    """Two bundles or runs on the same images: fer-ray compare runs/a runs/b --data data/fer2013"""
    from fer_ray import api
    from fer_ray.report.comparison_text import comparison_lines

    expected = api.count_images(data, split)
    first, second = (
        api.load_predictor(place, precision=precision, runtime=runtime, expected_images=expected)
        for place in (a, b)
    )
    say_predictor(first)
    say_predictor(second)
    comparison = api.compare(
        first, second, data, split=split, views=views, html=html, with_images=with_images
    )
    if json:
        result_json(comparison.as_dict())
    else:
        for line in comparison_lines(comparison):
            result(line)
    if html is not None:
        say(f"page: {html}")
