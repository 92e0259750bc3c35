"""`fer-ray train`, `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_ray.cli.handing_over import Detach, dashboard_of, hand_over
from fer_ray.cli.output import (
    Address,
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
    from fer_ray.training.epoch_result import EpochResult
    from fer_ray.training_run import TrainReport


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(predict)


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file without holes.")],
    data: Annotated[str | None, typer.Option(help="A prepared data set, or sample.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    overrides: Overrides = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; default all cores.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that train together.")] = 1,
    address: Address = None,
    detach: Detach = False,
) -> None:
    """Train one configuration: fer-ray train recipes/cnn.yaml --data data/fer2013"""
    from fer_ray import api

    place = out or Path("runs") / config.stem
    if dashboard := dashboard_of(address, detach=detach):
        source = api.check(config, overrides or (), data).base.data.source
        places = {"--out": place, "--data": source}
        hand_over(dashboard, places, detach=detach, upload=config, run=place)
    report = api.train(
        config,
        data=data,
        out=place,
        overrides=overrides or (),
        num_threads=threads,
        num_workers=workers,
        address=address,
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
    figures = report.validation
    low, high = figures["accuracy_interval"]
    result(
        f"bundle {report.bundle_id[:12]} at {report.path / 'best'}: validation accuracy "
        f"{percent(figures['accuracy'])} in fp32 (95 %: {100 * low:.1f} to {100 * high:.1f}; "
        f"majority {percent(figures['majority_accuracy'])}, always {figures['majority_label']})"
    )
    result(f"curves and figures at {report.path / 'report.html'} and curves.png")


def say_epoch(row: EpochResult) -> None:
    """An epoch's figures, in one line."""
    say(
        f"epoch {row.epoch:>3}  train loss {row.train_loss:.4f} accuracy "
        f"{row.train_accuracy:.4f}  validation loss {row.val_loss:.4f} accuracy "
        f"{row.val_accuracy:.4f}  best {row.best_objective:.4f} (epoch {row.best_epoch})  "
        f"{row.seconds:.1f} s, {row.images_per_s:,.0f} images/s"
    )


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
