"""A bundle on a split of a prepared data set; every opening of the test split is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer_ray.bundle.predictor import Predictor
from fer_ray.data.prepared import map_classes, open_prepared, read_split, record_test_opening
from fer_ray.errors import DataError
from fer_ray.evaluation.evaluate import figures


def evaluate_split(predictor: Predictor, data: Path, split: str, *, views: str) -> dict[str, Any]:
    """Every figure of a bundle on a split; see `fer_ray.api.evaluate`.

    Raises:
        DataError: no such data or split, or the data's classes are not the bundle's.
    """
    prepared = open_prepared(data)
    contents = predictor.bundle.contents
    if prepared.count(split) == 0:
        raise DataError(f"{prepared.path} has no {split} split")
    openings = 0
    if split == "test":
        openings = record_test_opening(prepared, "evaluate", predictor.bundle.id)
    classes = contents.lineage["config"]["data"]["classes"]
    images, names = map_classes(read_split(prepared, split), prepared.class_names, classes)
    if names != contents.class_names:
        raise DataError(
            f"the data have the classes {', '.join(names)}, "
            f"but the bundle {', '.join(contents.class_names)}"
        )
    temperature = contents.calibration.temperature
    single = figures(
        predictor.logits(images.images, views="single"), images.labels, names, temperature
    )
    document = {
        "split": split,
        "views": views,
        "test_openings": openings,
        "inference": predictor.inference,
    }
    if views == "single":
        return {**document, **single}
    logits = predictor.logits(images.images, views=views)
    return {**document, **figures(logits, images.labels, names, temperature), "single": single}
