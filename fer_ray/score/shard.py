"""A few images at once, as plain data: what `fer-ray predict` answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DecodeError, UnfinishedError
from fer_ray.images.decode import Decoded
from fer_ray.score.fetch import Fault, read_local
from fer_ray.score.items import readable_path


def read_and_decode(path: str, predictor: Predictor) -> Decoded | Fault:
    """One file to pixels, or the fault that becomes its row.

    Raises:
        UnfinishedError: the machine cannot read (I/O error, too many open files).
    """
    try:
        data = read_local(path)
    except OSError as error:
        raise UnfinishedError(f"cannot read {readable_path(path)}: {error}") from error
    if isinstance(data, Fault):
        return data
    try:
        return predictor.decode(data)
    except DecodeError as error:
        return Fault(error.error_type, error.message)


def score_images(
    paths: Sequence[str], predictor: Predictor, top_k: int | None
) -> list[dict[str, Any]]:
    """A few images at once, as plain data; see `fer_ray.api.predict`."""
    outcomes = [read_and_decode(path, predictor) for path in paths]
    pixels = [outcome.pixels for outcome in outcomes if isinstance(outcome, Decoded)]
    predictions = predictor.predict(np.stack(pixels)) if pixels else None
    results: list[dict[str, Any]] = []
    row = 0
    for path, outcome in zip(paths, outcomes, strict=True):
        entry: dict[str, Any] = {"path": readable_path(path)}
        if isinstance(outcome, Fault) or predictions is None:
            assert isinstance(outcome, Fault)
            entry["error"] = {"type": outcome.error_type, "message": outcome.error}
        else:
            entry["predictions"] = predictions.ranked(row, top_k)
            entry["uncertain"] = bool(predictions.uncertain[row])
            row += 1
        results.append(entry)
    return results
