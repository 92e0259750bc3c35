"""`fer-ray train`, `evaluate`, `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_ray.cli.output import (
    BundleOption,
    Json,
    Overrides,
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
    from fer_ray.training.loop import EpochResult
    from fer_ray.training_run import TrainReport


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(evaluate)
    app.command()(predict)


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file without holes.")],
    data: Annotated[str | None, typer.Option(help="A prepared data set, or sample.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    overrides: Overrides = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; default all cores.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that train together.")] = 1,
) -> None:
    """Train one configuration: fer-ray train recipes/cnn.yaml --data data/fer2013"""
    from fer_ray import api

    place = out or Path("runs") / config.stem
    report = api.train(
        config,
        data=data,
        out=place,
        overrides=overrides or (),
        num_threads=threads,
        num_workers=workers,
        on_epoch=say_epoch,
        say=say,
    )
    say_trained(report)
    say(f"  fer-ray evaluate {report.path}" + (f" --data {data}" if data else ""))
    say(f"  fer-ray serve --bundle {report.path}")


def say_trained(report: TrainReport) -> None:
    """The end of a training, also of a resumed one."""
    last = report.curve[-1]
    result(f"best epoch {last['best_epoch']}: objective {last['best_objective']:.4f}")
    result(f"bundle {report.bundle_id[:12]} at {report.path / 'best'}")
    result(f"curves and figures at {report.path / 'report.html'} and curves.png")


def say_epoch(row: EpochResult) -> None:
    """An epoch's figures, in one line."""
    say(
        f"epoch {row.epoch:>3}  train loss {row.train_loss:.4f} accuracy "
        f"{row.train_accuracy:.4f}  validation loss {row.val_loss:.4f} accuracy "
        f"{row.val_accuracy:.4f}  best {row.best_objective:.4f} (epoch {row.best_epoch})  "
        f"{row.seconds:.1f} s, {row.images_per_s:,.0f} images/s"
    )


def evaluate(
    bundle: Annotated[str | None, typer.Argument(metavar="[BUNDLE|RUN]")] = None,
    data: Annotated[Path, typer.Option(help="A prepared data set.")] = Path("data/fer2013"),
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    views: Views = "single",
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    json: Json = False,
) -> None:
    """Every figure of a bundle on a split: fer-ray evaluate runs/cnn --data data/fer2013"""
    from fer_ray import api

    predictor = api.load_predictor(
        bundle,
        precision=precision,
        runtime=runtime,
        views=views,
        expected_images=api.count_images(data, split),
    )
    say_predictor(predictor)
    figures = api.evaluate(predictor, data, split=split, views=views)
    if json:
        result_json(figures)
        return
    for line in _figure_lines(figures):
        result(line)
    if "single" in figures:
        result(f"without {views}: accuracy {percent(figures['single']['accuracy'])}")


def _figure_lines(figures: dict[str, Any]) -> list[str]:
    low, high = figures["accuracy_interval"]
    lines = [
        (
            f"accuracy           {percent(figures['accuracy'])}  (95 %: {percent(low)} to "
            f"{percent(high)}; {figures['correct']:,} of {figures['count']:,} {figures['split']} "
            f"images; majority {percent(figures['majority_accuracy'])})"
        ),
        f"top-2 accuracy     {percent(figures['top2_accuracy'])}",
        f"macro F1           {figures['macro_f1']:.4f}",
        f"balanced accuracy  {figures['balanced_accuracy']:.4f}",
        (
            f"log loss           {figures['log_loss']:.4f}   Brier {figures['brier']:.4f}   "
            f"ECE {figures['ece']:.4f} (before temperature {figures['ece_before_temperature']:.4f})"
        ),
        "",
        f"{'':<12}{'images':>8}{'precision':>11}{'recall':>8}{'F1':>8}",
    ]
    lines += [
        f"{row['label']:<12}{row['count']:>8,}{row['precision']:>11.3f}{row['recall']:>8.3f}"
        f"{row['f1']:>8.3f}"
        for row in figures["classes"]
    ]
    if figures["split"] == "test":
        lines.append(f"the test split has now been opened {figures['test_openings']} time(s)")
    return lines


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    bundle: BundleOption = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Default: all classes.")] = None,
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    views: Views = "single",
    json: Json = False,
) -> None:
    """Classify a few images, now, without Ray: fer-ray predict face.jpg"""
    from fer_ray import api
    from fer_ray.errors import NothingSucceededError

    predictor = api.load_predictor(
        bundle, precision=precision, runtime=runtime, views=views, expected_images=len(images)
    )
    say_predictor(predictor)
    answers = api.predict(predictor, images, top_k=top_k)
    for answer in answers:
        if json:
            result_json(answer)
        elif "error" in answer:
            result(f"{answer['path']}: {answer['error']['type']}: {answer['error']['message']}")
        else:
            bars = "  ".join(f"{p['label']} {p['score']:.3f}" for p in answer["predictions"])
            note = "  (uncertain)" if answer["uncertain"] else ""
            result(f"{answer['path']}: {bars}{note}")
    if all("error" in answer for answer in answers):
        raise NothingSucceededError("none of the images could be classified")
