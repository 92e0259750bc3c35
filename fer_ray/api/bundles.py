"""The verbs that load bundles, join them and write them in other forms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.bundle.export import Exported
    from fer_ray.bundle.load import Bundle
    from fer_ray.bundle.predictor import Predictor


def load_bundle(bundle: str | None = None) -> Bundle:
    """Read and check a bundle, a run's best, or the shipped model.

    Raises:
        BundleError: anything about it is wrong.
    """
    from fer_ray.bundle.load import find_bundle
    from fer_ray.bundle.load import load_bundle as load

    return load(find_bundle(bundle))


def load_predictor(
    bundle: str | None = None,
    *,
    precision: str = "auto",
    runtime: str = "auto",
    views: str = "single",
    num_threads: int | None = None,
    expected_images: int | None = None,
) -> Predictor:
    """Load a bundle, a run's best, or the shipped model, checked and made fast.

    Args:
        bundle: a directory; the shipped model where it is None.
        precision: `auto`, `fp32` or `bf16`.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`.
        views: `single`, `flip` or `ten_crop`.
        num_threads: of the network; all cores where it is None.
        expected_images: how many there are to classify, where that is known.

    Raises:
        BundleError: anything about it is wrong.
        UserError: an unknown word, or a runtime that is not installed or cannot compute so here.
    """
    from fer_ray.bundle.predictor import Predictor

    return Predictor(
        load_bundle(bundle),
        precision,
        runtime=runtime,
        views=views,
        num_threads=num_threads or os.cpu_count() or 1,
        expected_images=expected_images,
    )


def ensemble(
    bundles: Sequence[str],
    out: str | Path,
    *,
    name: str = "ensemble",
    data: str | Path | None = None,
    num_threads: int | None = None,
) -> Bundle:
    """Make one bundle of several that votes softly: the mean of their calibrated probabilities.

    Args:
        bundles: 2 to 16 bundles or runs, with equal classes and equal size of decoded images.
        out: the new directory; the members are copied into it.
        name: of the ensemble.
        data: a prepared data set; its validation split fits temperature and threshold and gives
            the figures. Without it the temperature is 1 and no answer is marked uncertain.
        num_threads: of torch; all cores where it is None.

    Raises:
        BundleError: the bundles do not go together.
        DataError: no such data, or its classes are not the bundles'.
        OutputExistsError: `out` is there.
    """
    import torch

    from fer_ray.evaluation.ensembling import make_ensemble

    torch.set_num_threads(num_threads or os.cpu_count() or 1)
    members = tuple(load_bundle(bundle) for bundle in bundles)
    prepared = Path(data) if data is not None else None
    return make_ensemble(members, Path(out), name=name, data=prepared)


def export(bundle: Bundle, out: str | Path, *, format: str = "onnx") -> Exported:  # noqa: A002 - as the option
    """Write a bundle as one ONNX file with its preprocessing, calibration and labels inside.

    Raises:
        UserError: an unknown format, the extra is not installed, or ONNX cannot say the network.
        OutputExistsError: `out` is there.
        BundleError: ONNX Runtime answers differently; nothing is kept.
    """
    from fer_ray.bundle.export import FORMATS, export_onnx

    if format not in FORMATS:
        raise UserError(f"format is {', '.join(FORMATS)}, but got {format!r}")
    return export_onnx(bundle, Path(out))
