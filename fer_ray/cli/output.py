"""What every command prints alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fer_ray.bundle.load import Bundle

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


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"
