"""`fer-ray score`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_ray.cli.handing_over import Detach, dashboard_of, hand_over
from fer_ray.cli.output import (
    Address,
    BundleOption,
    Json,
    Precision,
    Runtime,
    Views,
    percent,
    result,
    result_json,
    say,
    say_predictor,
)

if TYPE_CHECKING:
    from fer_ray.score.job import Progress
    from fer_ray.score.summary import ScoreReport


def register(app: typer.Typer) -> None:
    app.command()(score)


def score(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Folders, files, globs, lists (.txt; -), tables, archives, inventories, s3://, gs://.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The directory of Parquet files.")],
    bundle: BundleOption = None,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    views: Views = "single",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished job.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier job in DIR first.")
    ] = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Add what is new or changed to a finished job.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="With --resume: try error rows again.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Measure on a sample, estimate, write nothing.")
    ] = False,
    faces: Annotated[
        str, typer.Option(metavar="none|haar|yunet:PATH", help="One row a face found in photos.")
    ] = "none",
    face_margin: Annotated[
        float | None,
        typer.Option(help="Around a face, share of its side."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Also the K best classes as lists.")] = None,
    keep_columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="Columns of a table that go along.")
    ] = None,
    path_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a table. Default: path.")
    ] = None,
    bytes_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a Parquet table that holds the images.")
    ] = None,
    hash_: Annotated[bool, typer.Option("--hash", help="The sha256 of each file.")] = False,
    hash_paths: Annotated[
        bool, typer.Option("--hash-paths", help="The sha256 of each path in place of it.")
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="The network's penultimate features.")
    ] = False,
    labels_from_folders: Annotated[
        bool, typer.Option("--labels-from-folders", help="Folder names are labels: say accuracy.")
    ] = False,
    max_pixels: Annotated[
        int | None, typer.Option(help="Larger images become rows `too_large`.")
    ] = None,
    max_error_rate: Annotated[
        float, typer.Option(help="Stop where a larger share of rows are errors.")
    ] = 1.0,
    engine: Annotated[
        str, typer.Option(metavar="auto|local|ray", help="This process, or Ray.")
    ] = "auto",
    address: Address = None,
    detach: Detach = False,
    shard_rows: Annotated[
        int | None, typer.Option(help="Images a shard. Default: few at first, then more.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Decoding threads. Default: one a core.")
    ] = None,
    give_up_after: Annotated[
        float, typer.Option(metavar="SECONDS", help="Bear a transient fault so long.")
    ] = 60.0,
    report: Annotated[bool, typer.Option("--report", help="Write DIR/_report.html.")] = False,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="With --report: show some of the images.")
    ] = False,
    json: Json = False,
) -> None:
    """Classify images into Parquet: fer-ray score faces --out scores"""
    from fer_ray import api
    from fer_ray.score.options import Effort, RowOptions, SourceOptions

    if dashboard := dashboard_of(address, detach=detach):
        places = {"--out": out, "--bundle": bundle, **{f"SRC {text}": text for text in sources}}
        hand_over(dashboard, places, detach=detach)
    rows = RowOptions(
        faces=faces,
        face_margin_frac=face_margin,
        top_k=top_k,
        hash=hash_,
        hash_paths=hash_paths,
        embeddings=embeddings,
        labels_from_folders=labels_from_folders,
        max_pixels=max_pixels,
    )
    kept = tuple(name.strip() for name in (keep_columns or "").split(",") if name.strip())
    tables = SourceOptions(path_column, bytes_column, kept)
    effort = Effort(
        engine=engine,
        num_threads=threads,
        rows_a_shard=shard_rows,
        give_up_after_s=give_up_after,
        max_error_rate=max_error_rate,
        address=address,
    )
    if resume or incremental:
        runtime, precision = api.begun_with(out, runtime, precision)
    predictor = api.load_predictor(
        bundle,
        precision=precision,
        runtime=runtime,
        views=views,
        num_threads=threads,
        expected_images=api.count_files(sources),
    )
    say_predictor(predictor)
    if plan:
        estimate = api.plan_score(sources, predictor, rows=rows, tables=tables, effort=effort)
        if json:
            result_json(estimate.as_dict())
        else:
            for line in estimate.lines():
                result(line)
        return
    done = api.score(
        sources,
        out,
        predictor,
        resume=resume,
        overwrite=overwrite,
        incremental=incremental,
        retry_errors=retry_errors,
        rows=rows,
        tables=tables,
        effort=effort,
        resume_line=resume_line(sys.argv),
        report=report,
        with_images=with_images,
        on_progress=_live(),
    )
    if json:
        result_json(done.as_dict())
    else:
        _tell(done, report)


def resume_line(arguments: list[str]) -> str:
    """The command to go on with: the same one with --resume and without what began it."""
    from fer_ray.data.sources.remote import shown

    begun = ("--overwrite", "--incremental", "--resume", "--retry-errors")
    words = [shown(word) for word in arguments[1:] if word not in begun]
    return shlex.join(["fer-ray", *words, "--resume"])


def _live() -> Callable[[Progress], None]:
    """Progress: one live line on a terminal, elsewhere a line now and then."""
    is_terminal = sys.stderr.isatty()
    interval_s = 0.2 if is_terminal else 10.0
    told_at = [time.monotonic()]

    def tell(progress: Progress) -> None:
        is_last = progress.num_items is not None and progress.num_done >= progress.num_items
        if time.monotonic() - told_at[0] < interval_s and not is_last:
            return
        told_at[0] = time.monotonic()
        text = line_of(progress)
        if is_terminal:
            typer.echo(f"\r{text:<100}", err=True, nl=is_last)
        else:
            say(text)

    return tell


def line_of(progress: Progress) -> str:
    """Rows, rate, errors by kind and time left in one line."""
    of = f" of {progress.num_items:,}" if progress.num_items is not None else ", still listing"
    text = f"{progress.num_done:,}{of} images, {progress.rate:,.0f}/s"
    if progress.errors:
        text += ", errors: " + ", ".join(_counted(progress.errors))
    if progress.seconds_left is not None and progress.seconds_left >= 1:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        text += f", {minutes}:{seconds:02d} left"
    return text


def _tell(done: ScoreReport, report: bool) -> None:
    rate = done.rows_now / max(done.seconds, 1e-9)
    result(
        f"{done.rows:,} rows in {done.out}: {done.num_files:,} files, "
        f"{done.num_bytes / 1e6:,.1f} MB, {done.seconds:.1f} s, {rate:,.0f} images/s"
    )
    if done.labels:
        result("answers: " + ", ".join(_counted(done.labels)))
    if done.errors:
        result("errors: " + ", ".join(_counted(done.errors)))
    if done.status.get("no_face"):
        result(f"no face: {done.status['no_face']:,} photos")
    if done.skipped:
        result("skipped: " + ", ".join(_counted(done.skipped)))
    if done.drift is not None:
        result(f"class mix: {done.drift.word} (distance {done.drift.distance:.3f})")
    if done.agreement is not None:
        _tell_agreement(done)
    if report:
        result(f"report: {done.out / '_report.html'}")
    result(f'duckdb -c "{done.query}"')


def _tell_agreement(done: ScoreReport) -> None:
    agreement = done.agreement
    assert agreement is not None
    result(
        f"accuracy {percent(agreement.accuracy)} of {agreement.count:,} images with a label "
        f"(the commonest alone: {percent(agreement.majority_accuracy)}), "
        f"macro-F1 {agreement.macro_f1:.3f}"
    )
    names = agreement.class_names
    width = max(len(name) for name in names) + 2
    result("true \\ answer".ljust(15) + "".join(name.rjust(width) for name in names))
    for name, row in zip(names, agreement.confusion, strict=True):
        result(name.ljust(15) + "".join(f"{count:,}".rjust(width) for count in row))


def _counted(counts: dict[str, Any]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{name} {count:,}" for name, count in ordered]
