"""From trained weights to a bundle that knows its figures: validation, calibration, card."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer_ray import __version__
from fer_ray.bundle import limits
from fer_ray.bundle.card import model_card
from fer_ray.bundle.contents import Contents, write_bundle
from fer_ray.bundle.load import Bundle
from fer_ray.bundle.network import empty_network
from fer_ray.config.schema import Config
from fer_ray.data.faces import draw_faces
from fer_ray.data.loading import TrainingData
from fer_ray.errors import BundleError, UserError
from fer_ray.evaluation.calibrate import fit_calibration
from fer_ray.evaluation.evaluate import figures
from fer_ray.images.preprocess import Preprocess, Recipe, build_recipe
from fer_ray.models.build import build_model, count_macs, count_parameters
from fer_ray.models.inference import logits_of
from fer_ray.models.shapes import on_meta

NUM_GOLDEN = 16
GOLDEN_SEED = 20_130_701


def check_packable(config: Config, data: TrainingData) -> None:
    """Refuse a network, before it trains, whose bundle would be refused when it has.

    Raises:
        UserError: it exceeds a limit of `fer_ray.bundle.limits`.
    """
    num_layers = len(config.model.family.head)
    if num_layers > limits.MAX_HEAD_LAYERS:
        raise UserError(
            f"model: the head has {num_layers} layers; a bundle may have {limits.MAX_HEAD_LAYERS}"
        )
    recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
    try:
        empty_network(config.model, recipe, len(data.class_names), "model")
    except BundleError as error:
        remedy = None if error.__cause__ else "No bundle can hold it: make the network smaller."
        raise UserError(error.message, remedy) from error


def pack(
    out: Path,
    *,
    config: Config,
    data: TrainingData,
    state: dict[str, Tensor],
    curve: list[dict[str, Any]],
    data_name: str,
) -> str:
    """Make a bundle of a training's best weights.

    Args:
        out: the new directory.
        config: resolved.
        data: the validation split decides figures, temperature and threshold, in fp32.
        state: best weights, on the CPU.
        curve: the training's epochs.
        data_name: how the card names the data.

    Returns:
        the bundle's id.

    Raises:
        OutputExistsError: `out` is there.
    """
    model, recipe = trained_network(config, data, state)
    logits = validation_logits(model, recipe, data)
    calibration = fit_calibration(logits, data.validation.labels)
    metrics = {
        "validation": figures(
            logits, data.validation.labels, data.class_names, calibration.temperature
        ),
        "params": count_parameters(model),
        "macs": count_macs(model, recipe.channels, recipe.crop_px),
    }
    lineage = {
        "config": config.training_part(),
        "data": {"name": data_name, "fingerprint": data.fingerprint, "images": data.num_train},
        "curve": curve,
        "versions": versions(),
    }
    contents = Contents(
        config.name, config.model, data.class_names, recipe, calibration, metrics, lineage
    )
    return write_bundle(out, contents, state, model, golden_images(), model_card(contents))


def trained_network(
    config: Config, data: TrainingData, state: dict[str, Tensor]
) -> tuple[nn.Module, Recipe]:
    """The network of a config with a training's weights, in evaluation mode, and its recipe."""
    recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
    with on_meta():
        model = build_model(
            config.model,
            num_classes=len(data.class_names),
            in_channels=recipe.channels,
            input_px=recipe.crop_px,
        )
    model.load_state_dict(state, assign=True)
    return model.eval(), recipe


def validation_logits(
    model: nn.Module, recipe: Recipe, data: TrainingData
) -> npt.NDArray[np.float32]:
    """What a network says of the validation images in fp32, as its bundle would: float32 [N, C]."""
    preprocess = Preprocess(recipe)
    images = preprocess.static(torch.tensor(data.validation.images))
    return np.asarray(logits_of(model, preprocess, images, precision="fp32").numpy())


def repack(bundle: Bundle, out: Path, contents: Contents, card: str) -> str:
    """Another bundle of the same network, or of the same members.

    Args:
        bundle: checked; it stays as it is.
        out: the new directory.
        contents: of the new bundle, such as another calibration.
        card: its README.

    Returns:
        the new bundle's id.

    Raises:
        OutputExistsError: `out` is there.
    """
    return write_bundle(
        out,
        contents,
        {} if bundle.members else bundle.model.state_dict(),
        bundle.model,
        bundle.golden_images.numpy(),
        card,
        tuple(member.path for member in bundle.members),
    )


def golden_images() -> npt.NDArray[np.uint8]:
    """The synthetic faces of every bundle, uint8 [16, 48, 48]."""
    return np.ascontiguousarray(draw_faces(NUM_GOLDEN, GOLDEN_SEED)[0])


def versions() -> dict[str, str]:
    """What made a bundle, for its `lineage.json`."""
    names = ("torch", "torchvision", "numpy", "pillow")
    found = {name: metadata.version(name) for name in names}
    return {"fer_ray": __version__, "python": platform.python_version(), **found}
