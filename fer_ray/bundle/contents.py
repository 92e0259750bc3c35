"""What a bundle holds, as one value, and its writing. Reading is in `fer_ray.bundle.load`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from fer_ray.bundle import manifest
from fer_ray.config.schema import ModelConfig
from fer_ray.images.preprocess import Preprocess, Recipe
from fer_ray.models.inference import logits_of
from fer_ray.store import new_directory, require_absent, write_atomic, write_json

WEIGHTS_LICENSE = """\
Weights of a fer-ray bundle

These weights were made by training on the images named in lineage.json. fer-ray's own licence
(Apache-2.0) covers its code, not the rights in those images.

FER2013 (Goodfellow et al. 2013, arXiv 1307.0414) was collected from image searches and comes
without a grant from the owners of its images. Whether weights trained on it may be used for your
purpose, above all a commercial one, is a question for your lawyer.

The golden images inside this bundle are synthetic and show no person.
"""


@dataclass(frozen=True)
class CalibrationConfig:
    """How logits become probabilities and when an answer counts as uncertain.

    Attributes:
        temperature: probabilities are softmax(logits / temperature) (arXiv 1706.04599).
        threshold: an answer whose score lies below is `uncertain`.
        target_precision: share of right answers wanted among the others, on validation.
        coverage: share of validation images that are not uncertain.
    """

    temperature: float
    threshold: float
    target_precision: float
    coverage: float


@dataclass(frozen=True)
class Contents:
    """Everything a bundle says, but for its weights."""

    name: str
    model: ModelConfig
    class_names: tuple[str, ...]
    recipe: Recipe
    calibration: CalibrationConfig
    metrics: dict[str, Any]
    lineage: dict[str, Any]


def write_bundle(
    out: Path,
    contents: Contents,
    state: dict[str, Tensor],
    model: nn.Module,
    golden_images: np.ndarray[Any, np.dtype[np.uint8]],
    card: str,
) -> str:
    """Write a bundle, whole or not at all.

    Args:
        out: the new directory.
        contents: what it says.
        state: the network's state dict.
        model: the network with that state, on the CPU.
        golden_images: uint8 [16, H, W], synthetic.
        card: the model card, Markdown.

    Returns:
        the bundle's id.

    Raises:
        OutputExistsError: `out` is there.
    """
    require_absent(out, "the bundle", "Bundles are immutable: choose another name.")
    preprocess = Preprocess(contents.recipe)
    images = torch.from_numpy(golden_images)
    logits = logits_of(model, preprocess, preprocess.static(images), precision="fp32")
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with new_directory(out) as directory:
        write_atomic(directory / manifest.WEIGHTS, save(plain))
        write_atomic(
            directory / manifest.GOLDEN, save({"images": images, "logits": logits.contiguous()})
        )
        write_json(directory / manifest.CONFIG, _config_document(contents))
        write_json(directory / manifest.PREPROCESSOR, _preprocessor_document(contents.recipe))
        write_json(directory / manifest.CALIBRATION, asdict(contents.calibration))
        write_json(directory / manifest.METRICS, contents.metrics)
        write_json(directory / manifest.LINEAGE, contents.lineage)
        write_atomic(directory / manifest.CARD, card.encode("utf-8"))
        write_atomic(directory / manifest.LICENSE, WEIGHTS_LICENSE.encode("utf-8"))
        document = manifest.manifest_of(directory)
        write_json(directory / manifest.MANIFEST, document)
    return str(document["bundle_id"])


def _config_document(contents: Contents) -> dict[str, Any]:
    """Hugging Face's and timm's names where they have one, ours under `fer_ray`."""
    branch = contents.model.branch
    dumped = json.loads(contents.model.model_dump_json(include={branch}))
    names = contents.class_names
    crop = contents.recipe.crop_px
    return {
        "model_type": "fer_ray",
        "architecture": branch,
        "num_classes": len(names),
        "label_names": list(names),
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "input_size": [contents.recipe.channels, crop, crop],
        "fer_ray": {"name": contents.name, "model": dumped},
    }


def _preprocessor_document(recipe: Recipe) -> dict[str, Any]:
    size, crop = recipe.image_size_px, recipe.crop_px
    return {
        "do_convert_grayscale": True,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [recipe.mean] * recipe.channels,
        "image_std": [recipe.std] * recipe.channels,
        "fer_ray": recipe.as_dict(),
    }
