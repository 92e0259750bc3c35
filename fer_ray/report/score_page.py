"""The page of `fer-ray score --report`: one HTML file that needs no network.

Paths, labels and error texts are text: Jinja escapes them, and the page's own
Content-Security-Policy lets nothing run or load. Pictures are shown only on request.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fer_ray.bundle.load import Bundle
from fer_ray.errors import DecodeError, UserError
from fer_ray.images.decode import centre_square, decode, grey_of, open_image
from fer_ray.images.detect import CUT_PX, Face, scaled, square_around
from fer_ray.report.charts import bars, histogram_path
from fer_ray.report.page import render
from fer_ray.report.pictures import data_uri
from fer_ray.score.fetch import Fault, read_local
from fer_ray.score.output import Output
from fer_ray.score.summary import ScoreReport
from fer_ray.store import write_atomic

COMMAND = "score"
NUM_FAULTS = 30
PICTURES_A_CLASS = 8
_COLUMNS = ("path", "status", "label", "score", "box_x", "box_y", "box_w", "box_h")


@dataclass(frozen=True)
class Picture:
    """One image on the page."""

    uri: str
    label: str
    score: float


def write_score_page(report: ScoreReport, bundle: Bundle, *, with_images: bool) -> None:
    """Write `_report.html` of a finished job.

    Args:
        report: what the job did.
        bundle: that it was done with.
        with_images: show some images; only local files are read again.

    Raises:
        UserError: images are wanted, but the rows hide their paths.
    """
    output = Output(report.out)
    text = score_page(report, bundle, with_images=with_images)
    write_atomic(output.report, text.encode("utf-8"))


def score_page(report: ScoreReport, bundle: Bundle, *, with_images: bool) -> str:
    """The page as text."""
    total = sum(report.labels.values())
    shares = report.drift.validation_shares if report.drift is not None else {}
    names = bundle.contents.class_names
    return render(
        "score.html",
        COMMAND,
        name=report.out.name,
        bundle=bundle.title,
        report=report,
        bars=bars(
            {name: report.labels.get(name, 0) for name in names},
            {name: round(share * total) for name, share in shares.items()},
        ),
        # An empty step on both sides: the chart leaves the first and the last out of its scale.
        histogram=histogram_path(np.array([0, *report.scores, 0])),
        faults=_faults(Output(report.out)) if report.errors else [],
        pictures=_pictures(Output(report.out), bundle) if with_images else [],
    )


def _faults(output: Output) -> list[dict[str, Any]]:
    """The first error rows, in the order of the parts."""
    found: list[dict[str, Any]] = []
    for shard in output.finished():
        table = pq.read_table(
            output.part(shard),
            columns=["path", "error_type", "error"],
            filters=[("status", "=", "error")],
        )
        found += table.slice(0, NUM_FAULTS - len(found)).to_pylist()
        if len(found) == NUM_FAULTS:
            break
    return found


def _pictures(output: Output, bundle: Bundle) -> list[Picture]:
    """Some images of each class, drawn by the hash of their paths from the first part."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    table = pq.read_table(output.part(output.finished()[0]), columns=list(_COLUMNS))
    for row in table.to_pylist():
        if row["status"] == "ok":
            rows[row["label"]].append(row)
    size_px = bundle.contents.recipe.source_px
    pictures = []
    for name in bundle.contents.class_names:
        chosen = sorted(rows[name], key=lambda row: hashlib.sha256(row["path"].encode()).digest())
        for row in chosen[:PICTURES_A_CLASS]:
            if not row["path"].startswith("/"):
                raise UserError(
                    f"--with-images shows local files, but a row says {row['path'][:80]}",
                    "Leave it away for hashed paths and for other storage.",
                )
            pixels = _pixels(row, size_px)
            if pixels is not None:
                pictures.append(Picture(data_uri(pixels), row["label"], row["score"]))
    return pictures


def _pixels(row: dict[str, Any], size_px: int) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """The image, or the face in it, again; None where it has gone since."""
    data = read_local(row["path"])
    if isinstance(data, Fault):
        return None
    try:
        if row["box_x"] is None:
            return decode(data, size_px).pixels
        opened = open_image(data, CUT_PX)
    except DecodeError:
        return None
    grey = grey_of(opened.image)
    face = Face(row["box_x"], row["box_y"], row["box_w"], row["box_h"], 0.0)
    box = square_around(scaled(face, grey.width / opened.width_px), 0.0, grey.width, grey.height)
    return centre_square(grey, size_px, box)
