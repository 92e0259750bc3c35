"""Score rows, schema v1: one row an image, errors included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fer_ray.bundle.predictor import Predictions
from fer_ray.images.decode import Decoded

SCHEMA_VERSION = 1


def schema(class_names: Sequence[str]) -> pa.Schema:
    """Arrow schema of the rows; one probability column a class."""
    fields: list[pa.Field[Any]] = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("face_index", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("box_x", pa.float32()),
        pa.field("box_y", pa.float32()),
        pa.field("box_w", pa.float32()),
        pa.field("box_h", pa.float32()),
        pa.field("detector_score", pa.float32()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("uncertain", pa.bool_()),
    ]
    fields += [pa.field(f"p_{name}", pa.float32()) for name in class_names]
    return pa.schema(fields)


@dataclass(frozen=True)
class Fault:
    """A permanent fault of one image: it becomes a row.

    Attributes:
        error_type: a stable word: `empty`, `too_large`, `not_an_image`, `truncated`,
            `undecodable`, `unreadable` or `missing`.
        error: a short text.
    """

    error_type: str
    error: str


def table_of(
    paths: Sequence[str],
    outcomes: Sequence[Decoded | Fault],
    predictions: Predictions,
    class_names: Sequence[str],
) -> pa.Table:
    """Rows of a shard.

    Args:
        paths: N, readable.
        outcomes: N; the decoded ones, in order, are those that `predictions` speaks of.
        predictions: for the M decoded images.
        class_names: columns.
    """
    decoded = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
    is_ok = np.array([isinstance(outcome, Decoded) for outcome in outcomes], dtype=bool)
    faults = [None if isinstance(outcome, Decoded) else outcome for outcome in outcomes]
    names = np.asarray(predictions.class_names, dtype=object)
    columns: dict[str, Any] = {
        "path": list(paths),
        "face_index": np.zeros(len(paths), np.int32),
        "status": np.where(is_ok, "ok", "error"),
        "error_type": [fault and fault.error_type for fault in faults],
        "error": [fault and fault.error for fault in faults],
        "width": _spread(is_ok, np.array([d.width_px for d in decoded], np.int32)),
        "height": _spread(is_ok, np.array([d.height_px for d in decoded], np.int32)),
        "label": _spread(is_ok, names[predictions.label_indices]),
        "score": _spread(is_ok, predictions.scores),
        "margin": _spread(is_ok, predictions.margins),
        "uncertain": _spread(is_ok, predictions.uncertain),
    }
    for index, name in enumerate(class_names):
        columns[f"p_{name}"] = _spread(is_ok, predictions.probabilities[:, index])
    wanted = schema(class_names)
    arrays = [
        pa.array(columns[field.name], type=field.type)
        if field.name in columns
        else pa.nulls(len(paths), field.type)
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


def _spread(is_ok: np.ndarray[Any, np.dtype[np.bool_]], values: Any) -> pa.Array[Any]:
    """Values of the decoded images to all rows; null elsewhere."""
    positions = np.cumsum(is_ok) - 1
    spread: pa.Array[Any] = pa.array(values).take(pa.array(positions, mask=~is_ok))
    return spread
