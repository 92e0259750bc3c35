"""A small bundle for tests, made without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer_ray.data.prepared import Split
from fer_ray.evaluation.packing import pack
from fer_ray.images.preprocess import Preprocess, build_recipe
from fer_ray.models.build import build_model
from fer_ray.models.inference import logits_of
from tests.small import small_config, small_data


def tiny_bundle(
    directory: Path,
    *,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    gain: float = 4.0,
) -> Path:
    """Pack an untrained network with random weights, in a fraction of a second.

    Args:
        directory: the new bundle.
        seed: another seed gives other weights, hence another bundle id.
        changes: of the small config, such as `{"data.crop": 24}`.
        gain: of every layer's weights; untrained, the network would answer alike for every face.

    Returns:
        `directory`.
    """
    config, data = small_config({"name": "tiny", **(changes or {})}), small_data()
    recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
    torch.manual_seed(seed)
    model = build_model(
        config.model,
        num_classes=len(data.class_names),
        in_channels=recipe.channels,
        input_px=recipe.crop_px,
    ).eval()
    for value in model.parameters():
        if value.ndim > 1:
            value.data *= gain
    # Right on every other image: calibration has something sensible to fit.
    preprocess = Preprocess(recipe)
    images = preprocess.static(torch.from_numpy(data.validation.images))
    answers = logits_of(model, preprocess, images, precision="fp32").argmax(1).numpy()
    labels = data.validation.labels.copy()
    labels[::2] = answers[::2]
    pack(
        directory,
        config=config,
        data=replace(data, validation=Split(data.validation.images, labels)),
        state=model.state_dict(),
        curve=[],
        data_name="synthetic faces",
    )
    return directory
