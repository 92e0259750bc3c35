"""A bundle of each network family: saved, moved, loaded in a fresh process, bit-equal."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fer_ray.bundle.load import load_bundle
from fer_ray.data.faces import draw_faces
from fer_ray.evaluation.ensembling import make_ensemble
from fer_ray.images.preprocess import Preprocess
from fer_ray.models.inference import logits_of
from tests.bundles import tiny_bundle

ROOT = Path(__file__).parents[3]

FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "residual": {"model.cnn": {"channels": [4, 6, 8], "residual": True, "block_dropout": 0.1}},
    "flatten": {
        "data.equalize": "clahe",
        "model.cnn": {
            "channels": [4, 6],
            "pool": "flatten",
            "batchnorm": [2],
            "head": [5],
            "head_batchnorm": True,
        },
    },
    "resnet": {
        "data.channels": 3,
        "data.normalize": "imagenet",
        "data.image_size": 32,
        "data.crop": 32,
        "model": {"resnet": {"arch": "resnet18", "weights": "none", "stem": "small", "head": [9]}},
    },
}

_ANSWER = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from tests.unit.bundle.test_round_trips import answers
for place in sys.argv[1:]:
    print(answers(Path(place)).tobytes().hex())
"""


def answers(place: Path) -> np.ndarray:
    """Logits in fp32 on faces that are not the golden ones."""
    bundle = load_bundle(place)
    preprocess = Preprocess(bundle.contents.recipe)
    images = preprocess.static(torch.from_numpy(draw_faces(8, 77)[0]))
    return logits_of(bundle.model, preprocess, images, precision="fp32").numpy()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of each family, and an ensemble of two of them."""
    place = tmp_path_factory.mktemp("families")
    made = {name: tiny_bundle(place / name, changes=changes) for name, changes in FAMILIES.items()}
    members = (load_bundle(made["plain"]), load_bundle(made["flatten"]))
    made["ensemble"] = make_ensemble(members, place / "ensemble", name="two", data=None).path
    return made


def test_moved_and_loaded_in_a_fresh_process_it_answers_bit_by_bit_as_before(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    before = {name: answers(place) for name, place in saved.items()}
    moved = {
        name: Path(shutil.copytree(place, tmp_path / "elsewhere" / f"{name} ü"))
        for name, place in saved.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", _ANSWER, *map(str, moved.values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, line in zip(moved, done.stdout.split(), strict=True):
        assert bytes.fromhex(line) == before[name].tobytes(), name
    assert len({logits.tobytes() for logits in before.values()}) == len(before)


def test_the_golden_answers_are_bit_by_bit_those_it_was_written_with(
    saved: dict[str, Path],
) -> None:
    torch.set_num_threads(1)
    for name, place in saved.items():
        bundle = load_bundle(place)
        preprocess = Preprocess(bundle.contents.recipe)
        images = preprocess.static(bundle.golden_images)
        logits = logits_of(bundle.model, preprocess, images, precision="fp32")
        assert torch.equal(logits, bundle.golden_logits), name


def test_hugging_faces_and_timms_fields_agree_with_ours(saved: dict[str, Path]) -> None:
    for place in saved.values():
        contents = load_bundle(place).contents
        config = json.loads((place / "config.json").read_text())
        timm = config["pretrained_cfg"]
        crop, channels = contents.recipe.crop_px, contents.recipe.channels
        assert config["input_size"] == timm["input_size"] == [channels, crop, crop]
        assert (config["image_size"], config["num_channels"]) == (crop, channels)
        assert config["num_classes"] == timm["num_classes"] == len(config["label_names"]) == 7
        assert timm["mean"] == [contents.recipe.mean] * channels
        assert round(crop / timm["crop_pct"]) == contents.recipe.image_size_px
        preprocessor = json.loads((place / "preprocessor_config.json").read_text())
        assert preprocessor["image_mean"] == timm["mean"]
        assert preprocessor["image_std"] == timm["std"]
        assert preprocessor["resample"] == 2


_READ = """
import sys
from pathlib import Path
from fer_ray.bundle.load import load_bundle
for place in sys.argv[1:]:
    load_bundle(Path(place))
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


def test_reading_bundles_imports_no_compiler(saved: dict[str, Path]) -> None:
    """Three seconds of a start; see `fer_ray.models.shapes`. Torchvision brings it itself."""
    places = [str(place) for name, place in saved.items() if name != "resnet"]
    command = [sys.executable, "-c", _READ, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
