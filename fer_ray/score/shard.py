"""One shard: a slice of the sorted paths becomes rows, by a pure function of it and the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fer_ray.bundle.predictor import Predictions, Predictor
from fer_ray.errors import DecodeError, UnfinishedError
from fer_ray.images.decode import MAX_BYTES, Decoded
from fer_ray.score.listing import readable_path
from fer_ray.score.rows import Fault, table_of

_CHUNK = 256
"""Images decoded ahead of the network; bounds memory."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def score_shard(paths: Sequence[str], predictor: Predictor, num_threads: int) -> pa.Table:
    """Read, decode and classify.

    Args:
        paths: files.
        predictor: decides size, classes and probabilities.
        num_threads: decoding beside the network.

    Returns:
        one row a path, in order, schema v1.

    Raises:
        UnfinishedError: a fault of the machine, not of an image: never a row.
    """
    outcomes: list[Decoded | Fault] = []
    parts: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    threshold = predictor.bundle.contents.calibration.threshold
    with ThreadPoolExecutor(num_threads) as pool:
        for chunk in _ahead(pool, predictor, paths):
            outcomes += chunk
            pixels = [outcome.pixels for outcome in chunk if isinstance(outcome, Decoded)]
            if pixels:
                parts.append(predictor.predict(np.stack(pixels)).probabilities)
    empty = np.zeros((0, len(predictor.class_names)), np.float32)
    predictions = Predictions(np.concatenate([empty, *parts]), predictor.class_names, threshold)
    readable = [readable_path(path) for path in paths]
    return table_of(readable, outcomes, predictions, predictor.class_names)


def _ahead(
    pool: ThreadPoolExecutor, predictor: Predictor, paths: Sequence[str]
) -> Iterator[list[Decoded | Fault]]:
    """Chunks of outcomes, the next one being decoded while this one is classified."""
    starts = range(0, len(paths), _CHUNK)
    waiting: Iterable[Decoded | Fault] | None = None
    for start in starts:
        following = pool.map(
            lambda path: read_and_decode(path, predictor), paths[start : start + _CHUNK]
        )
        if waiting is not None:
            yield list(waiting)
        waiting = following
    if waiting is not None:
        yield list(waiting)


def read_and_decode(path: str, predictor: Predictor) -> Decoded | Fault:
    """One file to pixels, or the fault that becomes its row.

    Raises:
        UnfinishedError: the machine cannot read (I/O error, too many open files).
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except _PERMANENT as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        return Fault(kind, error.strerror or str(error))
    except OSError as error:
        raise UnfinishedError(f"cannot read {readable_path(path)}: {error}") from error
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
