"""`fer-ray export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer_ray.cli.output import Json, result, result_json, say_bundle


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    bundle: Annotated[str | None, typer.Argument(metavar="[BUNDLE|RUN]")] = None,
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",  # noqa: A002 - the option's name
    out: Annotated[Path | None, typer.Option(help="The new file; default NAME.onnx.")] = None,
    json: Json = False,
) -> None:
    """Write one ONNX file, pixels to probabilities: fer-ray export runs/cnn --out cnn.onnx"""
    from fer_ray import api

    loaded = api.load_bundle(bundle)
    say_bundle(loaded)
    place = out or Path(f"{loaded.contents.name}.{format}")
    exported = api.export(loaded, place, format=format)
    shape = ", ".join(str(size) for size in exported.input_shape)
    answer = ", ".join(str(size) for size in exported.output_shape)
    if json:
        result_json(
            {
                "path": str(exported.path),
                "bundle_id": loaded.id,
                "bytes": exported.bytes,
                "opset": exported.opset,
                "images": list(exported.input_shape),
                "probabilities": list(exported.output_shape),
                "max_difference": exported.max_difference,
            }
        )
        return
    result(f"{exported.path}: {exported.bytes:,} bytes, opset {exported.opset}")
    result(f"images uint8 [{shape}] -> probabilities float32 [{answer}]")
    result(
        "checked by ONNX Runtime: golden probabilities differ by at most "
        f"{exported.max_difference:.1g} from the Predictor's"
    )
