"""What a bundle holds, as one value, and its writing. Reading is in `fer_ray.bundle.load`."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from fer_ray.bundle import documents, manifest
from fer_ray.bundle.network import empty_network
from fer_ray.bundle.reading import open_listed
from fer_ray.config.sections.model import ModelConfig
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
    """Everything a bundle says, but for its weights.

    Attributes:
        name: of the bundle.
        model: its network; None for an ensemble, whose networks are its members'.
        class_names: labels in the order of the logits.
        recipe: the preprocessing.
        calibration: temperature and threshold.
        metrics, lineage: as `docs/bundle.md` lists them.
    """

    name: str
    model: ModelConfig | None
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
    members: tuple[Path, ...] = (),
) -> str:
    """Write a bundle, whole or not at all.

    Args:
        out: the new directory.
        contents: what it says.
        state: the network's state dict; of an ensemble nothing.
        model: the network with that state, on the CPU.
        golden_images: uint8 [16, H, W], synthetic.
        card: the model card, Markdown.
        members: of an ensemble, bundles to copy into it.

    Returns:
        the bundle's id.

    Raises:
        OutputExistsError: `out` is there.
        BundleError: the network or a name exceeds what a bundle may hold.
    """
    assert (contents.model is None) == bool(members), "an ensemble has members, a network none"
    require_absent(out, "the bundle", "Bundles are immutable: choose another name.")
    config = config_document(contents, len(members))
    documents.read_config(config, manifest.CONFIG)
    if contents.model is not None:
        classes = len(contents.class_names)
        empty_network(contents.model, contents.recipe, classes, manifest.CONFIG)
    preprocess = Preprocess(contents.recipe)
    images = torch.from_numpy(golden_images)
    logits = logits_of(model, preprocess, preprocess.static(images), precision="fp32")
    with new_directory(out) as directory:
        if not members:
            plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
            write_atomic(directory / manifest.WEIGHTS, save(plain))
        write_atomic(
            directory / manifest.GOLDEN, save({"images": images, "logits": logits.contiguous()})
        )
        write_json(directory / manifest.CONFIG, config)
        write_json(
            directory / manifest.PREPROCESSOR, documents.preprocessor_document(contents.recipe)
        )
        write_json(directory / manifest.CALIBRATION, asdict(contents.calibration))
        write_json(directory / manifest.METRICS, contents.metrics)
        write_json(directory / manifest.LINEAGE, contents.lineage)
        write_atomic(directory / manifest.CARD, card.encode("utf-8"))
        write_atomic(directory / manifest.LICENSE, WEIGHTS_LICENSE.encode("utf-8"))
        copied = _copy_members(directory, members) if members else None
        document = manifest.manifest_of(directory, copied)
        write_json(directory / manifest.MANIFEST, document)
    return str(document["bundle_id"])


def _copy_members(directory: Path, members: tuple[Path, ...]) -> dict[str, str]:
    """Copy the listed files of each member; gives folder -> bundle_id."""
    copied = {}
    for number, member in enumerate(members):
        folder = manifest.member_folder(number)
        listed = manifest.read_manifest(member)
        for name in (*listed.files, manifest.MANIFEST):
            if name == manifest.CARD and not (member / name).is_file():
                continue  # a missing card is a warning, there as here
            with open_listed(member, name) as source:
                place = directory / folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("xb") as target:
                    shutil.copyfileobj(source, target)
        copied[folder] = listed.bundle_id
    return copied


def config_document(contents: Contents, num_members: int = 0) -> dict[str, Any]:
    """`config.json`: Hugging Face's and timm's names where they have one, ours under `fer_ray`."""
    if contents.model is None:
        branch: str = manifest.ENSEMBLE
        model = {branch: {"members": num_members, "vote": "mean_probability"}}
    else:
        branch = contents.model.branch
        model = json.loads(contents.model.model_dump_json(include={branch}))
    names = contents.class_names
    recipe = contents.recipe
    return {
        "model_type": "fer_ray",
        "architecture": branch,
        "problem_type": "single_label_classification",
        "num_classes": len(names),
        "label_names": list(names),
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "input_size": [recipe.channels, recipe.crop_px, recipe.crop_px],
        "image_size": recipe.crop_px,
        "num_channels": recipe.channels,
        "pretrained_cfg": documents.timm_document(recipe, len(names)),
        "fer_ray": {"name": contents.name, "model": model},
    }
