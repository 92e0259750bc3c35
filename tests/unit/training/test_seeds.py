"""The seeds' files under search_spaces/seeds: each builds, trains, and is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_ray.bundle.pretrained import resnet_state
from fer_ray.config.schema import Config
from fer_ray.config.space import load_config, load_space
from fer_ray.data.faces import draw_faces
from fer_ray.data.loading import TrainingData
from fer_ray.data.prepared import Split
from fer_ray.labels import class_map
from fer_ray.models import vision
from fer_ray.models.build import build_model
from fer_ray.training.loop import Training

SEEDS = Path(__file__).parents[3] / "search_spaces" / "seeds"
FILES = sorted(path for path in SEEDS.glob("*.yaml") if path.stem != "ablation")
TRANSFER = {"keras_resnet50", "resnet18_head", "resnet18_sgd", "resnet50_unfrozen"}


def test_the_nine_seeds_are_there() -> None:
    assert {path.stem for path in FILES} == TRANSFER | {
        "colab_cnn",
        "keras_cnn",
        "mymodel_cnn",
        "pairs_cnn",
        "pairs_cnn_4class",
    }
    assert {path.stem for path in FILES if load_config(path).model.resnet} == TRANSFER


@pytest.fixture(scope="module")
def body_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts as torchvision publishes them, with random weights, as local files."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for arch in ("resnet18", "resnet50"):
        torch.manual_seed(0)
        files[arch] = folder / f"{arch}.pth"
        torch.save(getattr(vision.models(), arch)(weights=None).state_dict(), files[arch])
    return files


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_seed_trains_with_local_weights_where_it_needs_some(
    path: Path, body_files: dict[str, Path]
) -> None:
    small = ["train.epochs=1", "train.batch_size=4", "train.precision=fp32"]
    resnet = load_config(path).model.resnet
    if resnet is not None:
        assert resnet.weights == "imagenet", "never a random start"
        small.append(f"model.resnet.weights={body_files[resnet.arch]}")
    config = load_config(path, small)
    names = class_map(config.data.classes).names
    training = Training(config, faces(names), resnet_state(config.model))
    before = {name: value.clone() for name, value in training.model.named_parameters()}
    [result] = list(training.epochs())
    assert np.isfinite(result.train_loss)
    moved = {
        name for name, value in training.model.named_parameters() if (value != before[name]).any()
    }
    assert moved
    if path.stem in ("resnet18_head", "keras_resnet50"):
        assert all(name.startswith("head.") for name in moved)


def faces(names: tuple[str, ...]) -> TrainingData:
    images, labels = draw_faces(12, 0)
    split = Split(images, labels % len(names))
    return TrainingData(names, split, split, 0.5, 0.25, "sample", 12, 48)


def parameters(config: Config) -> int:
    names = class_map(config.data.classes).names
    model = build_model(
        config.model,
        num_classes=len(names),
        in_channels=config.data.channels,
        input_px=config.data.crop,
    )
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_networks_by_hand() -> None:
    """Parameters of two of them, counted from the seeds' words."""

    def conv(source: int, target: int) -> int:
        return 9 * source * target

    def dense(source: int, target: int) -> int:
        return source * target + target

    # Four convolutions, batch norm in place of a bias after the first and third, 3 x 3 x 256 flat.
    colab = conv(1, 16) + 2 * 16 + conv(16, 64) + 64 + conv(64, 128) + 2 * 128
    colab += conv(128, 256) + 256 + dense(9 * 256, 128) + dense(128, 84) + dense(84, 7)
    assert parameters(load_config(SEEDS / "colab_cnn.yaml")) == colab
    # Pairs: the first of each with a bias, the second followed by batch norm.
    pairs, source = 0, 1
    for width in (16, 32, 64, 128):
        pairs += conv(source, width) + width + conv(width, width) + 2 * width
        source = width
    hidden = dense(9 * 128, 512) + dense(512, 256) + dense(256, 128)
    assert parameters(load_config(SEEDS / "pairs_cnn.yaml")) == pairs + hidden + dense(128, 7)
    four = parameters(load_config(SEEDS / "pairs_cnn_4class.yaml"))
    assert four == pairs + hidden + dense(128, 4)


def test_the_ablation_is_the_seeds_four_questions() -> None:
    space = load_space(SEEDS / "ablation.yaml")
    points = [point for point in space.grid() if not space.is_forbidden(space.complete(point))]
    assert len(points) == 2 * 2 * 3 * 2 == space.base.search.trials
    asked = {address for point in points for address in point}
    assert asked == {
        "model.cnn.batchnorm",
        "model.cnn.head_dropout",
        "augment.flip_p",
        "augment.rotate_deg",
        "train.optimizer",
    }
