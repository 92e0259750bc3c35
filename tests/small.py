"""A config and data so small that a training takes a tenth of a second."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np

from fer_ray.config.schema import Config
from fer_ray.data.faces import draw_faces
from fer_ray.data.loading import TrainingData
from fer_ray.data.prepared import Split
from fer_ray.labels import EXPRESSIONS

_TREE: dict[str, Any] = {
    "version": 1,
    "name": "small",
    "data": {"source": "sample", "image_size": 24, "crop": 20},
    "model": {"cnn": {"channels": [4, 8], "convs_per_block": 1, "head_dropout": 0.1}},
    "train": {
        "epochs": 2,
        "batch_size": 16,
        "device": "cpu",
        "precision": "fp32",
        "ema": None,
        "schedule": {"constant": {}},
    },
}


def small_config(changes: dict[str, Any] | None = None) -> Config:
    """The small config with some leaves or sections changed.

    Args:
        changes: dotted address -> value; `train.optimizer` and the like replace the section.
    """
    tree = copy.deepcopy(_TREE)
    for address, value in (changes or {}).items():
        *parents, last = address.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = copy.deepcopy(value)
    return Config.model_validate(tree)


@functools.cache
def small_data(num_train: int = 64, num_validation: int = 32) -> TrainingData:
    """Synthetic faces, 24 x 24 pixels."""
    return TrainingData(
        EXPRESSIONS,
        _faces(num_train, 1),
        _faces(num_validation, 2),
        mean=0.5,
        std=0.25,
        fingerprint="sample",
        num_train=num_train,
        size_px=24,
    )


def _faces(count: int, seed: int) -> Split:
    images, labels = draw_faces(count, seed)
    halved = images.reshape(count, 24, 2, 24, 2).mean(axis=(2, 4))
    return Split(halved.round().astype(np.uint8), labels)
