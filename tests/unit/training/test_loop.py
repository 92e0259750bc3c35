"""The training loop: it learns, repeats itself, resumes exactly, and every option acts."""

import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fer_ray.bundle.pretrained import resnet_state
from fer_ray.config.sections.augment import AugmentConfig
from fer_ray.config.sections.base import Section
from fer_ray.config.sections.data import DataConfig
from fer_ray.config.sections.model import ModelConfig
from fer_ray.config.sections.train import TrainConfig
from fer_ray.data.loading import TrainingData
from fer_ray.data.prepared import Split
from fer_ray.errors import UserError
from fer_ray.evaluation.evaluate import figures
from fer_ray.labels import EXPRESSIONS
from fer_ray.models import vision
from fer_ray.models.build import build_model
from fer_ray.models.inference import logits_of
from fer_ray.training import step
from fer_ray.training.epoch_result import EpochResult
from fer_ray.training.loop import Training
from tests.small import small_config, small_data

TIMES = {"seconds", "images_per_s"}
NO_AUGMENT = {
    "flip_p": 0.0,
    "rotate_deg": 0.0,
    "zoom_frac": 0.0,
    "shift_frac": 0.0,
    "brightness_frac": 0.0,
    "contrast_frac": 0.0,
    "erase_p": 0.0,
}


WEIGHTS = "body.safetensors"
"""A ResNet18's weights, in the directory that every test here runs in."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("workplace")
    torch.manual_seed(7)
    save_file(vision.models().resnet18(weights=None).state_dict(), place / WEIGHTS)
    return place


@pytest.fixture(autouse=True)
def _in_workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)


def trained(changes: dict[str, Any] | None = None, data: TrainingData | None = None) -> Training:
    config = small_config(changes)
    training = Training(config, data or small_data(), resnet_state(config.model))
    for _ in training.epochs():
        pass
    return training


def everything(training: Training) -> dict[str, Tensor]:
    """The network's tensors at the end, the averages, and the best epoch's."""
    state = {f"model/{k}": v.clone() for k, v in training.model.state_dict().items()}
    state |= {f"best/{k}": v for k, v in training.best_state().items()}
    if training.ema is not None:
        state |= {f"ema/{k}": v.clone() for k, v in training.ema.averages.items()}
    return state


def equal(one: Training, two: Training) -> bool:
    a, b = everything(one), everything(two)
    if a.keys() != b.keys():
        return False
    return all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)


def curve(training: Training) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in training.curve]


# --- it learns ------------------------------------------------------------------------------------


def test_learns_32_images_by_heart() -> None:
    train = small_data().train
    assert isinstance(train, Split)
    few = Split(train.images[:32], train.labels[:32])
    data = TrainingData(
        EXPRESSIONS,
        few,
        few,
        mean=0.5,
        std=0.25,
        fingerprint="sample",
        num_train=len(few),
        size_px=24,
    )
    training = trained(
        {
            "model.cnn": {
                "channels": [8, 16],
                "convs_per_block": 1,
                "pool": "flatten",
                "head_dropout": 0.0,
            },
            "data.crop": 24,
            "augment": NO_AUGMENT,
            "train.epochs": 30,
            "train.label_smoothing": 0.0,
            "train.optimizer": {"adam": {"lr": 0.01}},
        },
        data,
    )
    assert training.curve[-1]["train_accuracy"] == 1.0
    assert training.best_objective == 1.0
    assert training.curve[-1]["train_loss"] < 0.1


def test_the_first_loss_is_that_of_a_guess_and_it_falls() -> None:
    rows = trained({"train.epochs": 6}).curve
    assert rows[0]["train_loss"] == pytest.approx(math.log(7), abs=0.6)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_resnets_train_too() -> None:
    model = {"resnet": {"weights": "none"}}
    training = trained({"model": model, "train.epochs": 1, "train.batch_size": 32})
    assert math.isfinite(training.curve[0]["val_loss"])


# --- it repeats itself ----------------------------------------------------------------------------

RICH = {
    "train.ema": 0.9,
    "augment": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
    "model.cnn": {"channels": [4, 8], "block_dropout": 0.1, "head": [8], "head_batchnorm": True},
}


@pytest.mark.parametrize("changes", [{}, RICH], ids=["plain", "rich"])
def test_a_seed_repeats_its_training_bit_by_bit(changes: dict[str, Any]) -> None:
    one = trained(changes)
    torch.manual_seed(99)  # whatever ran in this process before
    np.random.default_rng().random()
    two = trained(changes)
    assert equal(one, two)
    assert curve(one) == curve(two)


def test_another_seed_starts_and_goes_elsewhere() -> None:
    one, two = trained(), trained({"train.seed": 1})
    assert not equal(one, two)
    first = Training(small_config(), small_data()).model.state_dict()
    other = Training(small_config({"train.seed": 1}), small_data()).model.state_dict()
    assert not torch.equal(first["blocks.0.body.0.weight"], other["blocks.0.body.0.weight"])


VARIANTS: dict[str, dict[str, Any]] = {
    "momentum and ema": {"train.ema": 0.9, "train.schedule": {"cosine": {"warmup_epochs": 1}}},
    "plateau": {
        "train.schedule": {"plateau": {"factor": 0.5, "patience": 1}},
        "train.optimizer": {"sgd": {"lr": 1e-4}},
    },
    "adam": {"train.optimizer": {"adam": {"lr": 0.01}}, "train.ema": 0.5},
    "adamw, everything on": {
        **RICH,
        "train.optimizer": {"adamw": {"lr": 0.01}},
        "train.grad_clip": 0.5,
    },
    "early stop": {"train.early_stop": 3, "train.optimizer": {"sgd": {"lr": 1e-9}}},
    **{
        f"{optimizer} {schedule}": {
            "train.optimizer": {optimizer: {"lr": 0.01}},
            "train.schedule": {schedule: {}},
            "train.ema": 0.8,
        }
        for optimizer, schedule in [
            *itertools.product(("sgd", "adam", "adamw"), ("cosine", "plateau")),
            ("sgd", "step"),
            ("adam", "exponential"),
            ("adamw", "onecycle"),
            ("adam", "constant"),
        ]
    },
    "log loss": {"objective": {"metric": "val/log_loss", "goal": "minimize"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_training_is_the_uninterrupted_one(
    variant: str, epoch: int, tmp_path: Path
) -> None:
    changes = {"train.epochs": 5, **VARIANTS[variant]}
    whole = trained(changes)
    first = Training(small_config(changes), small_data())
    for result in first.epochs():
        if result.epoch == epoch:
            break
    first.save(tmp_path / "checkpoint")
    torch.manual_seed(123)
    second = Training(small_config(changes), small_data())
    second.resume(tmp_path / "checkpoint")
    assert second.epoch == epoch
    for _ in second.epochs():
        pass
    assert curve(second) == curve(whole)
    assert equal(second, whole)
    assert (second.best_epoch, second.best_objective) == (whole.best_epoch, whole.best_objective)


def test_plateau_did_shrink_in_its_variant() -> None:
    rates = [row["lr"] for row in trained({"train.epochs": 5, **VARIANTS["plateau"]}).curve]
    assert rates[-1] < rates[0], "else the variant above proves nothing"


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    trained().save(tmp_path / "checkpoint")
    other = Training(small_config({"train.batch_size": 8}), small_data())
    with pytest.raises(UserError, match="of another config"):
        other.resume(tmp_path / "checkpoint")


# --- every option acts ----------------------------------------------------------------------------

SGD, ADAM, ADAMW = ({"train.optimizer": {name: {}}} for name in ("sgd", "adam", "adamw"))
DEAD = {"train.optimizer": {"sgd": {"lr": 1e-6}}, "train.epochs": 4}
"""So slow that the objective never gains; batch norm's biases start at 0 and show it."""

DOUBLING = {"depth": 2, "width": 4, "convs_per_block": 1}
ONE_STEP = {"train.epochs": 1, "train.batch_size": 64}
RESNET = {**ONE_STEP, "model": {"resnet": {"weights": WEIGHTS}}}
RANDOM = {**ONE_STEP, "model": {"resnet": {"weights": "none"}}}

ACTS: dict[str, list[tuple[dict[str, Any], Any]]] = {
    # leaf: (what else is set, its other value); several where a value means another code path.
    "augment.flip_p": [({}, 0.0)],
    "augment.rotate_deg": [({}, 0.0)],
    "augment.zoom_frac": [({}, 0.0)],
    "augment.shift_frac": [({}, 0.0)],
    "augment.brightness_frac": [({}, 0.0)],
    "augment.contrast_frac": [({}, 0.0)],
    "augment.erase_p": [({}, 0.0)],
    "augment.erase_frac": [({}, 0.9)],
    "augment.mixup_alpha": [({}, 1.0), ({"augment.mixup_alpha": 1.0}, 0.2)],
    "augment.cutmix_alpha": [({}, 1.0), ({"augment.cutmix_alpha": 1.0}, 0.2)],
    "train.epochs": [({}, 1), ({"train.schedule": {"cosine": {}}}, 3)],
    "train.batch_size": [({}, 8)],
    "train.seed": [({}, 1)],
    "train.precision": [({}, "bf16")],
    "train.label_smoothing": [({}, 0.0)],
    "train.class_weights": [({}, "balanced"), ({"train.class_weights": "balanced"}, "sqrt")],
    "train.logit_adjustment": [({}, 1.0), ({"train.logit_adjustment": 1.0}, 0.5)],
    "train.ema": [({}, 0.5), ({"train.ema": 0.4}, 0.2)],
    "train.grad_clip": [({}, 0.01), ({"train.grad_clip": 0.01}, 0.02)],
    "train.early_stop": [({**DEAD}, 1), ({**DEAD, "train.early_stop": 1}, 2)],
    "train.optimizer.sgd.lr": [(SGD, 0.01)],
    "train.optimizer.sgd.momentum": [(SGD, 0.5)],
    "train.optimizer.sgd.nesterov": [(SGD, False)],
    "train.optimizer.sgd.weight_decay": [(SGD, 0.0)],
    "train.optimizer.adam.lr": [(ADAM, 0.01)],
    "train.optimizer.adam.weight_decay": [(ADAM, 0.1)],
    "train.optimizer.adamw.lr": [(ADAMW, 0.01)],
    "train.optimizer.adamw.weight_decay": [(ADAMW, 0.0)],
    "train.schedule.cosine.warmup_epochs": [({"train.schedule": {"cosine": {}}}, 0)],
    "train.schedule.step.step_epochs": [({"train.schedule": {"step": {"step_epochs": 1}}}, 2)],
    "train.schedule.step.gamma": [({"train.schedule": {"step": {"step_epochs": 1}}}, 0.5)],
    "train.schedule.exponential.gamma": [({"train.schedule": {"exponential": {}}}, 0.5)],
    "train.schedule.plateau.factor": [
        ({**DEAD, "train.schedule": {"plateau": {"patience": 1}}}, 0.1)
    ],
    "train.schedule.plateau.patience": [
        ({**DEAD, "train.schedule": {"plateau": {"patience": 1}}}, 2)
    ],
    "train.schedule.onecycle.warmup_frac": [({"train.schedule": {"onecycle": {}}}, 0.75)],
    "data.image_size": [({}, 28)],
    "data.crop": [({}, 18)],
    "data.channels": [({}, 3)],
    "data.equalize": [({}, "histogram")],
    "data.normalize": [({}, "unit"), ({"data.normalize": "unit"}, "imagenet")],
    "model.cnn.channels": [({}, [4, 6]), ({"model.cnn": DOUBLING}, [4, 6])],
    "model.cnn.depth": [({"model.cnn": DOUBLING}, 3)],
    "model.cnn.width": [({"model.cnn": DOUBLING}, 6)],
    "model.cnn.convs_per_block": [({}, 2)],
    "model.cnn.batchnorm": [({}, "none"), ({}, [2])],
    "model.cnn.batchnorm_after": [({"model.cnn.convs_per_block": 2}, "block")],
    "model.cnn.block_dropout": [({}, 0.3)],
    "model.cnn.stem_stride": [({}, 2)],
    "model.cnn.residual": [({}, True)],
    "model.cnn.pool": [({}, "flatten")],
    "model.cnn.head": [({}, [8])],
    "model.cnn.head_batchnorm": [({"model.cnn.head": [8]}, True)],
    "model.cnn.head_dropout": [({}, 0.6)],
    "model.resnet.arch": [(RANDOM, "resnet34")],
    "model.resnet.weights": [(RESNET, "none")],
    "model.resnet.stem": [(RANDOM, "small")],
    "model.resnet.unfreeze": [(RESNET, 1)],
    "model.resnet.unfreeze_from": [(RESNET, "layer4.1")],
    "model.resnet.unfreeze_batchnorm": [({**RESNET, "model.resnet.unfreeze": 0}, False)],
    "model.resnet.body_lr_factor": [(RESNET, 0.1)],
    "model.resnet.head": [(RESNET, [8])],
    "model.resnet.head_dropout": [(RESNET, 0.6)],
}

EXCEPTIONS = {"train.device": "where it trains, not what"}
"""Of model, augment and train: at most three."""

DATA_ELSEWHERE = {
    "data.source": "tests/unit/data",
    "data.classes": "tests/unit/data",
    "data.labels": "test_votes_are_soft_targets",
    "data.cache": "how it is read, not what",
}


def leaves(section: type[Section], address: str) -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        members = [field.annotation, *getattr(field.annotation, "__args__", ())]
        below = [m for m in members if isinstance(m, type) and issubclass(m, Section)]
        here = f"{address}.{name}"
        found += leaves(below[0], here) if below else [here]
    return found


def test_every_leaf_is_listed() -> None:
    schema = leaves(AugmentConfig, "augment") + leaves(TrainConfig, "train")
    schema += leaves(ModelConfig, "model") + leaves(DataConfig, "data")
    assert {*ACTS, *EXCEPTIONS, *DATA_ELSEWHERE} == set(schema)
    assert len(EXCEPTIONS) <= 3


@functools.cache
def unchanged(base: str) -> Training:
    return trained(json.loads(base))


@pytest.mark.parametrize(
    ("leaf", "base", "value"),
    [
        pytest.param(leaf, base, value, id=f"{leaf}={value}")
        for leaf, cases in ACTS.items()
        for base, value in cases
    ],
)
def test_every_leaf_acts(leaf: str, base: dict[str, Any], value: Any) -> None:
    before = unchanged(json.dumps(base))
    after = trained({**base, leaf: value})
    assert small_config(base) != small_config({**base, leaf: value})
    assert not equal(before, after)


def test_branches_differ_from_each_other() -> None:
    optimizers = [{"sgd": {"lr": 0.01}}, {"adam": {"lr": 0.01}}, {"adamw": {"lr": 0.01}}]
    schedules = ("constant", "cosine", "step", "exponential", "onecycle")
    trainings = [trained({"train.optimizer": optimizer}) for optimizer in optimizers]
    trainings += [
        trained({"train.schedule": {name: {"step_epochs": 1} if name == "step" else {}}})
        for name in schedules
    ]
    for number, one in enumerate(trainings):
        assert not any(equal(one, two) for two in trainings[number + 1 :])


def test_plain_batch_norm_does_not_change_with_its_name_only() -> None:
    names = {"model.cnn": {"channels": [4, 8], "convs_per_block": 1, "batchnorm": [1, 2]}}
    both = {"model.cnn": {"channels": [4, 8], "convs_per_block": 1, "batchnorm": "all"}}
    assert equal(trained(names), trained(both))


# --- epochs ---------------------------------------------------------------------------------------


def test_an_epoch_takes_every_image_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 71  # no multiple of the batch size
    images = np.zeros((count, 24, 24), np.uint8)
    images[:, 0, 0] = np.arange(count)
    labels = (np.arange(count) % 7).astype(np.int64)
    split = Split(images, labels)
    data = TrainingData(
        EXPRESSIONS,
        split,
        split,
        mean=0.5,
        std=0.25,
        fingerprint="sample",
        num_train=len(split),
        size_px=24,
    )
    seen: list[list[int]] = []
    real = step.augment

    def recording(batch: Tensor, *rest: Any) -> Tensor:
        seen.append(batch[:, 0, 0].tolist())
        return real(batch, *rest)

    monkeypatch.setattr(step, "augment", recording)
    trained({}, data)
    half = len(seen) // 2
    orders = [list(itertools.chain(*seen[:half])), list(itertools.chain(*seen[half:]))]
    for order in orders:
        assert sorted(order) == list(range(count))
    assert orders[0] != orders[1], "each epoch has its own order"
    assert {len(batch) for batch in seen} <= {14, 15}, "no batch is left with a few images"


def test_a_batch_larger_than_the_data_is_one_batch() -> None:
    assert trained({"train.batch_size": 1000}).curve[0]["train_accuracy"] >= 0


def test_epochs_count_from_1_and_best_is_best_so_far() -> None:
    rows = trained({"train.epochs": 6}).curve
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    objectives = [row["objective"] for row in rows]
    for number, row in enumerate(rows, start=1):
        assert row["best_objective"] == max(objectives[:number])
        assert row["best_epoch"] == 1 + objectives.index(max(objectives[:number]))
        assert row["objective"] == row["val_accuracy"]


@pytest.mark.parametrize(
    ("metric", "goal", "column"),
    [
        ("val/accuracy", "maximize", "val_accuracy"),
        ("val/macro_f1", "maximize", "val_macro_f1"),
        ("val/balanced_accuracy", "maximize", "val_balanced_accuracy"),
        ("val/log_loss", "minimize", "val_loss"),
    ],
)
def test_the_objective_is_the_configs_metric(metric: str, goal: str, column: str) -> None:
    training = trained({"train.epochs": 4, "objective": {"metric": metric, "goal": goal}})
    values = [row[column] for row in training.curve]
    assert [row["objective"] for row in training.curve] == values
    best = max(values) if goal == "maximize" else min(values)
    assert training.best_objective == best
    assert training.best_epoch == 1 + values.index(best)


@pytest.mark.parametrize("ema", [None, 0.8])
def test_best_state_holds_the_best_epochs_weights(ema: float | None) -> None:
    training = Training(small_config({"train.epochs": 8, "train.ema": ema}), small_data())
    by_epoch: dict[int, dict[str, Tensor]] = {}
    for result in training.epochs():
        state = {name: value.clone() for name, value in training.model.state_dict().items()}
        if training.ema is not None:
            state |= {name: value.clone() for name, value in training.ema.averages.items()}
        by_epoch[result.epoch] = state
    assert training.best_epoch < 8, "else the last epoch's weights would do as well"
    best = training.best_state()
    expected = by_epoch[training.best_epoch]
    assert best.keys() == expected.keys()
    assert all(torch.equal(best[name], expected[name]) for name in best)

    config = small_config({"train.epochs": 8, "train.ema": ema})
    model = build_model(config.model, num_classes=7, in_channels=1, input_px=20)
    model.load_state_dict(best)
    preprocess = training.preprocess
    images = preprocess.static(torch.from_numpy(small_data().validation.images))
    logits = logits_of(model, preprocess, images, precision="fp32").numpy()
    found = figures(logits, small_data().validation.labels, EXPRESSIONS, 1.0)
    assert found["accuracy"] == training.best_objective


def test_early_stop_counts_epochs_without_gain() -> None:
    training = trained({**DEAD, "train.epochs": 9, "train.early_stop": 3})
    assert training.best_epoch == 1
    assert training.epoch == 4


def test_validation_is_not_augmented() -> None:
    wild = {"flip_p": 1.0, "rotate_deg": 180.0, "erase_p": 1.0, "erase_frac": 1.0}
    still = {
        "model.cnn": {"channels": [4], "batchnorm": "none", "head_dropout": 0.5},
        "train.optimizer": {"sgd": {"lr": 1e-30}},
        "train.epochs": 1,
    }
    rows = [trained({**still, "augment": augment}).curve[0] for augment in (wild, NO_AUGMENT)]
    assert rows[0]["train_loss"] != rows[1]["train_loss"]
    assert rows[0]["val_loss"] == rows[1]["val_loss"]
    training = Training(small_config(still), small_data())
    images = training.preprocess.static(torch.from_numpy(small_data().validation.images))
    logits = logits_of(training.model, training.preprocess, images, precision="fp32").numpy()
    found = figures(logits, small_data().validation.labels, EXPRESSIONS, 1.0)
    assert rows[0]["val_loss"] == pytest.approx(found["log_loss"], rel=1e-6)


# --- divergence -----------------------------------------------------------------------------------


def run(changes: dict[str, Any]) -> tuple[Training, list[EpochResult]]:
    training = Training(small_config(changes), small_data())
    return training, list(training.epochs())


@pytest.mark.parametrize("batch_size", [16, 64], ids=["many steps", "one step"])
@pytest.mark.parametrize("metric", ["val/accuracy", "val/log_loss"])
def test_a_diverged_training_ends_and_says_so(batch_size: int, metric: str, tmp_path: Path) -> None:
    goal = "minimize" if metric == "val/log_loss" else "maximize"
    training, results = run(
        {
            "train.optimizer": {"sgd": {"lr": 1e30}},
            "train.batch_size": batch_size,
            "train.epochs": 9,
            "objective": {"metric": metric, "goal": goal},
        }
    )
    assert results[-1].diverged
    assert len(results) <= 2
    assert not any(result.diverged for result in results[:-1])
    numbers = [value for row in training.curve for value in row.values()]
    assert all(math.isfinite(value) for value in numbers), "curves go into JSON"
    assert all(torch.isfinite(value).all() for value in training.best_state().values())
    training.save(tmp_path / "checkpoint")


def test_weights_from_before_a_divergence_are_kept() -> None:
    training = Training(small_config({"train.epochs": 9}), small_data())
    for result in training.epochs():
        if result.epoch == 2:
            kept = training.best_state()
            with torch.no_grad():
                training.model.get_parameter("head.1.weight").fill_(math.nan)
    assert training.curve[-1]["diverged"]
    assert training.epoch == 3
    assert training.best_epoch in (1, 2)
    assert all(torch.equal(kept[name], value) for name, value in training.best_state().items())
    assert training.curve[-1]["best_objective"] == training.curve[-2]["best_objective"]


def test_nothing_is_best_when_the_first_epoch_diverges() -> None:
    training, results = run({"train.optimizer": {"sgd": {"lr": 1e30}}})
    if results[0].diverged:
        assert training.best_epoch == 0
        assert results[0].best_objective == -1.0


def test_votes_are_soft_targets() -> None:
    hard = small_data()
    assert isinstance(hard.train, Split)
    one_hot = np.eye(7, dtype=np.float32)[hard.train.labels]
    same = dataclasses.replace(hard, train=dataclasses.replace(hard.train, votes=one_hot))
    torn = dataclasses.replace(
        hard, train=dataclasses.replace(hard.train, votes=0.5 * one_hot + 0.5 / 7)
    )
    assert curve(trained({}, same))[0]["train_loss"] == pytest.approx(
        curve(trained({}, hard))[0]["train_loss"], rel=1e-5
    )
    assert not equal(trained({}, torn), trained({}, hard))
