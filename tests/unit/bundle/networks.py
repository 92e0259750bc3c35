"""Untrained bundles of every kind of network and preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer_ray.bundle.load import Bundle, load_bundle
from fer_ray.data.prepared import Split
from fer_ray.evaluation.packing import pack
from fer_ray.images.preprocess import Preprocess, build_recipe
from fer_ray.models.build import build_model
from fer_ray.models.inference import logits_of
from tests.small import small_config, small_data

KINDS: dict[str, dict[str, Any]] = {
    "cnn": {},
    "flat": {
        "model": {
            "cnn": {
                "channels": [4, 8],
                "pool": "flatten",
                "residual": True,
                "head": [5],
                "head_batchnorm": True,
            }
        }
    },
    "histogram": {"data.equalize": "histogram"},
    "clahe": {"data.equalize": "clahe"},
    "resized": {"data.image_size": 32, "data.crop": 28},
    "resnet": {
        "model": {"resnet": {"weights": "none", "stem": "small", "head": [8]}},
        "data.channels": 3,
        "data.crop": 24,
    },
}


def bundle_of(kind: str, folder: Path) -> Bundle:
    """Random weights, large enough to tell images apart."""
    config, data = small_config({"name": kind, **KINDS[kind]}), small_data()
    recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
    torch.manual_seed(0)
    model = build_model(
        config.model, num_classes=7, in_channels=recipe.channels, input_px=recipe.crop_px
    ).eval()
    for value in model.parameters():
        if value.ndim == 2:
            value.data *= 4
    # Right on every other image: the fitted temperature then leaves the answers apart.
    preprocess = Preprocess(recipe)
    images = preprocess.static(torch.from_numpy(data.validation.images))
    answers = logits_of(model, preprocess, images, precision="fp32").argmax(1).numpy()
    labels = data.validation.labels.copy()
    labels[::2] = answers[::2]
    pack(
        folder / kind,
        config=config,
        data=replace(data, validation=Split(data.validation.images, labels)),
        state=model.state_dict(),
        curve=[],
        data_name="synthetic faces",
    )
    return load_bundle(folder / kind)
