"""Reading a bundle: hashes, limits, shapes, and the golden answers, before anything is served."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fer_ray.bundle import manifest
from fer_ray.bundle.contents import CalibrationConfig, Contents
from fer_ray.config.schema import ModelConfig
from fer_ray.errors import BundleError, UserError
from fer_ray.images.preprocess import Preprocess, Recipe
from fer_ray.models.build import build_model
from fer_ray.models.inference import logits_of
from fer_ray.store import read_json

SHIPPED = "fer2013-small"
GOLDEN_TOLERANCE = 1.0e-3
"""Largest difference of a golden logit in fp32: other processors round differently."""

MAX_CLASSES = 1000
MAX_SIDE_PX = 1024


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    Attributes:
        path: its directory.
        id: sha256 over weights, config, preprocessor and calibration.
        contents: what it says.
        model: the network in fp32, evaluation mode, on the CPU.
        golden_images: uint8 [16, H, W].
        golden_logits: float32 [16, C].
        warnings: said to the user, such as an edited model card.
    """

    path: Path
    id: str
    contents: Contents
    model: nn.Module
    golden_images: Tensor
    golden_logits: Tensor
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name, short id and figures, in one line."""
        metrics = self.contents.metrics.get("validation", {})
        text = f"{self.contents.name} ({self.id[:12]})"
        if "accuracy" in metrics:
            text += f", validation accuracy {100 * metrics['accuracy']:.1f} %"
        if self.contents.lineage.get("data", {}).get("fingerprint") == "sample":
            text += " on synthetic faces"
        return text


def find_bundle(place: str | None) -> Path:
    """A bundle's directory from what the user gave: a bundle, a run, or nothing.

    Raises:
        BundleError: there is none.
    """
    if place is None:
        return Path(str(resources.files("fer_ray"))) / "pretrained" / SHIPPED
    path = Path(place)
    if (path / "run.json").is_file():
        best = path / "best"
        if not best.exists():
            raise BundleError(f"the run {path} has no best bundle yet")
        return Path(os.path.realpath(best))
    if not path.exists():
        raise BundleError(f"there is no bundle {place}", "Give a bundle's or a run's directory.")
    return path


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: anything about it is wrong.
    """
    bundle_id, warnings = manifest.check_manifest(path)
    try:
        contents = _contents(path)
        model = _model(path, contents)
        golden = load_file(path / manifest.GOLDEN)
        images, logits = golden["images"], golden["logits"]
        bundle = Bundle(path, bundle_id, contents, model, images, logits, tuple(warnings))
        check_golden(bundle)
    except BundleError:
        raise
    except (UserError, ValidationError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {str(error)[:500]}") from error
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise BundleError(
            f"{path} cannot be read: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    return bundle


def check_golden(bundle: Bundle) -> None:
    """Compare the network's answers on the golden images with those it was saved with.

    Raises:
        BundleError: an answer differs by more than `GOLDEN_TOLERANCE`.
    """
    images = bundle.golden_images
    if images.dtype != torch.uint8 or images.ndim != 3 or not images.numel():
        raise BundleError(f"{bundle.path}: golden images must be uint8 [N, H, W]")
    preprocess = Preprocess(bundle.contents.recipe)
    logits = logits_of(
        bundle.model, preprocess, preprocess.static(bundle.golden_images), precision="fp32"
    )
    if logits.shape != bundle.golden_logits.shape:
        raise BundleError(f"{bundle.path}: golden logits have another shape")
    difference = float((logits - bundle.golden_logits).abs().max())
    if not difference <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"{bundle.path}: golden logits differ by {difference:.2g}; "
            f"at most {GOLDEN_TOLERANCE:g} is rounding"
        )


def _contents(path: Path) -> Contents:
    config = read_json(path / manifest.CONFIG)
    recipe = Recipe(**read_json(path / manifest.PREPROCESSOR)["fer_ray"])
    calibration = CalibrationConfig(**read_json(path / manifest.CALIBRATION))
    names = tuple(str(name) for name in config["label_names"])
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise BundleError(f"{path}: 2 to {MAX_CLASSES} different label names are wanted")
    sides = (recipe.source_px, recipe.image_size_px, recipe.crop_px)
    if not all(type(side) is int and 1 <= side <= MAX_SIDE_PX for side in sides):
        raise BundleError(f"{path}: image sides {sides} must lie in 1..{MAX_SIDE_PX}")
    if recipe.crop_px > recipe.image_size_px or recipe.channels not in (1, 3):
        raise BundleError(f"{path}: crop {recipe.crop_px} or channels {recipe.channels} is wrong")
    numbers = (recipe.mean, recipe.std, calibration.temperature, calibration.threshold)
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise BundleError(f"{path}: mean, std, temperature and threshold must be finite numbers")
    if not calibration.temperature > 0:
        raise BundleError(f"{path}: temperature must be above 0")
    metrics: Any = read_json(path / manifest.METRICS)
    lineage: Any = read_json(path / manifest.LINEAGE)
    if not isinstance(metrics, dict) or not isinstance(lineage, dict):
        raise BundleError(f"{path}: {manifest.METRICS} and {manifest.LINEAGE} must be mappings")
    name = str(config["fer_ray"]["name"])
    model = ModelConfig.model_validate(config["fer_ray"]["model"])
    return Contents(name, model, names, recipe, calibration, metrics, lineage)


def _model(path: Path, contents: Contents) -> nn.Module:
    """Build the network without memory, compare it with the file's header, then fill it."""
    with torch.device("meta"):
        model = build_model(
            contents.model,
            num_classes=len(contents.class_names),
            in_channels=contents.recipe.channels,
            input_px=contents.recipe.crop_px,
        )
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    with safe_open(path / manifest.WEIGHTS, framework="pt") as file:
        names = set(file.keys())
        if names != set(wanted):
            different = sorted(names ^ set(wanted))[:3]
            raise BundleError(f"{path}: weights do not fit the network: {different}")
        for name in names:
            shape = tuple(file.get_slice(name).get_shape())
            if shape != wanted[name][0]:
                raise BundleError(
                    f"{path}: {name} has shape {shape}, the network wants {wanted[name][0]}"
                )
    state = load_file(path / manifest.WEIGHTS)
    for name, value in state.items():
        if value.dtype != wanted[name][1]:
            raise BundleError(f"{path}: {name} has dtype {value.dtype}, not {wanted[name][1]}")
    model.load_state_dict(state, assign=True)
    return model.eval()
