"""What a run of `fer-ray train` shows: `report.html`, one file that needs no network, and
`curves.png`. Both follow from the run's bundle and can be made again at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer_ray.bundle import manifest
from fer_ray.errors import UserError
from fer_ray.report.curves import training_panels
from fer_ray.report.curves_png import curves_png
from fer_ray.report.page import render
from fer_ray.runs import RunDirectory, yaml_text
from fer_ray.store import read_json, write_atomic

COMMAND = "train"
PAGE, PICTURE = "report.html", "curves.png"


def write_train_page(run: RunDirectory) -> Path:
    """Write the page and the picture of a finished training.

    Args:
        run: of `fer-ray train`, with its bundle.

    Returns:
        the page.

    Raises:
        UserError: the run has no bundle, or its files cannot be read or written.
    """
    if not run.best.exists():
        raise UserError(f"{run.path} has no bundle yet: its training has not ended")
    bundle = run.best
    document = read_json(bundle / manifest.MANIFEST)
    metrics, lineage = read_json(bundle / manifest.METRICS), read_json(bundle / manifest.LINEAGE)
    page = train_page(run.path.name, str(document["bundle_id"]), metrics, lineage)
    try:
        write_atomic(run.path / PAGE, page.encode("utf-8"))
        panels = training_panels(lineage["curve"])
        if panels:
            write_atomic(run.path / PICTURE, curves_png(panels, _title(lineage, metrics)))
    except OSError as error:
        raise UserError(f"cannot write {run.path / PAGE}: {error.strerror}") from error
    return run.path / PAGE


def train_page(
    run_name: str, bundle_id: str, metrics: dict[str, Any], lineage: dict[str, Any]
) -> str:
    """The page as text.

    Args:
        run_name: of the run's directory.
        bundle_id: of its bundle.
        metrics, lineage: documents of that bundle.
    """
    curve = lineage["curve"]
    config = lineage["config"]
    return render(
        "train.html",
        COMMAND,
        run_name=run_name,
        bundle_id=bundle_id,
        metrics=metrics,
        validation=metrics["validation"],
        lineage=lineage,
        config=config,
        config_text=yaml_text(config),
        curve=curve,
        last=curve[-1],
        best=curve[curve[-1]["best_epoch"] - 1],
        seconds=sum(row["seconds"] for row in curve),
        panels=training_panels(curve),
    )


def _title(lineage: dict[str, Any], metrics: dict[str, Any]) -> str:
    accuracy = 100 * metrics["validation"]["accuracy"]
    name, data = lineage["config"]["name"], lineage["data"]["name"]
    return f"{name} on {data}: validation accuracy {accuracy:.1f} % at its best epoch"
