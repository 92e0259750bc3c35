"""`fer-ray score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import (
    BundleOption,
    Json,
    Precision,
    Runtime,
    Views,
    result,
    result_json,
    say,
    say_predictor,
)


def register(app: typer.Typer) -> None:
    app.command()(score)


def score(
    sources: Annotated[list[str], typer.Argument(metavar="SRC...", help="Folders and files.")],
    out: Annotated[Path, typer.Option(help="The new directory of Parquet files.")],
    bundle: BundleOption = None,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    views: Views = "single",
    overwrite: Annotated[bool, typer.Option(help="Delete an earlier job in DIR first.")] = False,
    json: Json = False,
) -> None:
    """Classify image folders into Parquet: fer-ray score faces --out scores"""
    from dataclasses import asdict

    from fer_ray import api

    predictor = api.load_predictor(
        bundle,
        precision=precision,
        runtime=runtime,
        views=views,
        expected_images=api.count_files(sources),
    )
    say_predictor(predictor)
    report = api.score(
        sources,
        out,
        predictor,
        overwrite=overwrite,
        on_shard=lambda done, total: say(f"{done:,} of {total:,} images"),
    )
    if json:
        result_json({**asdict(report), "out": str(report.out)})
        return
    rate = report.rows / max(report.seconds, 1e-9)
    result(f"{report.rows:,} rows in {report.out}, {report.seconds:.1f} s, {rate:,.0f} images/s")
    result("answers: " + ", ".join(f"{name} {count:,}" for name, count in _most(report.labels)))
    if report.errors:
        result("errors: " + ", ".join(f"{name} {count:,}" for name, count in _most(report.errors)))
    if report.num_skipped:
        result(f"skipped: {report.num_skipped:,} files whose names are not an image's")


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])
