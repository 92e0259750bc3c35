"""What every command prints alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fer_ray.bundle.load import Bundle
    from fer_ray.bundle.predictor import Predictor

Overrides = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="ADDRESS=VALUE", help="Change one value of the file."),
]
BundleOption = Annotated[
    str | None,
    typer.Option("--bundle", metavar="BUNDLE|RUN", help="Default: the shipped model."),
]
Precision = Annotated[
    str, typer.Option(help="auto, fp32 (reproducible everywhere) or bf16.", metavar="P")
]
Runtime = Annotated[
    str,
    typer.Option(
        help="auto (the fastest that agrees), torch, openvino or onnxruntime.", metavar="R"
    ),
]
Views = Annotated[
    str,
    typer.Option(help="single, flip or ten_crop: views of an image to average.", metavar="V"),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT|URL",
        help="Of a Ray cluster; http://HEAD:8265 hands the command to it. "
        "Default: RAY_ADDRESS, or a Ray started here.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document a line on stdout.")]


def say(text: str) -> None:
    """Talk, to stderr."""
    typer.echo(text, err=True)


def result(text: str) -> None:
    """A result, to stdout."""
    typer.echo(text)


def result_json(document: Any) -> None:
    """A result as one line of JSON."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def say_bundle(bundle: Bundle) -> None:
    """Which bundle is at work, with its figures; and its warnings."""
    say(f"bundle: {bundle.title}")
    for warning in bundle.warnings:
        say(f"warning: {warning}")


def say_predictor(predictor: Predictor) -> None:
    """Which bundle is at work, in which runtime and why."""
    say_bundle(predictor.bundle)
    say(f"runtime: {predictor.title}")


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"
