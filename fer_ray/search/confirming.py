"""The trainings of a confirmation, as Ray tasks: resumable one by one, no trial of the study.

Each leaves `confirm/<trial>-<index>.json` in the run, with what it predicted for every validation
image; what is there is not trained again. `study.db` holds the comparison.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_ray.config.schema import Config
from fer_ray.data.loading import TrainingData, load_validation_data
from fer_ray.images.preprocess import Preprocess, build_recipe
from fer_ray.models.build import build_model
from fer_ray.models.inference import logits_of
from fer_ray.runs import RunDirectory
from fer_ray.search.confirm import Repeat, compare, repeats_of
from fer_ray.search.resources import Slots
from fer_ray.search.stopping import StopWatch
from fer_ray.search.study import Study
from fer_ray.search.trainable import CHECKPOINT_EVERY_S, TrialSetting, pretrained_of
from fer_ray.store import read_json, write_json
from fer_ray.training.loop import Training

_LOOK_EVERY_S = 0.5
_MAX_RETRIES = 2


def confirm(
    study: Study,
    slots: Slots,
    data: Any,
    states: Any,
    setting: TrialSetting,
    say: Callable[[str], None],
) -> str | None:
    """Train what is missing of a confirmation, then compare.

    Args:
        study: whose search is over.
        slots: the cluster's.
        data: reference to `TrainingData`.
        states: reference to the pretrained weights.
        setting: its deadline is that of the whole run.
        say: told of each training that ends.

    Returns:
        why it ended before it was done (`stopped`, `time budget`), or None.
    """
    import ray

    stop = StopWatch(study.run)
    wanted = repeats_of(study)
    missing = [repeat for repeat in wanted if not _path(study.run, repeat).is_file()]
    if missing:
        say(f"confirming: {len(missing)} trainings on fresh seeds")
    task = ray.remote(num_cpus=slots.cpu, num_gpus=slots.gpu, max_retries=_MAX_RETRIES)(
        train_repeat
    )
    under_way: dict[Any, Repeat] = {}
    why: str | None = None
    while missing or under_way:
        if stop.is_asked:
            why = "stopped"
        elif setting.deadline is not None and time.time() >= setting.deadline:
            why = "time budget"
        while missing and why is None and len(under_way) < slots.count:
            repeat = missing.pop(0)
            under_way[task.remote(repeat, data, states, setting)] = repeat
        if not under_way:
            break
        ended, _ = ray.wait(list(under_way), timeout=_LOOK_EVERY_S)
        for reference in ended:
            repeat = under_way.pop(reference)
            result = ray.get(reference)
            if result is not None:
                say(f"confirmation of trial {repeat.trial}, seed {repeat.index}: {result:.4f}")
    _note(study, wanted, why)
    return why


def train_repeat(
    repeat: Repeat, data: TrainingData, states: Mapping[str, Any], setting: TrialSetting
) -> float | None:
    """One training, in a worker; its objective, or None where it was stopped before its end."""
    torch.set_num_threads(setting.num_threads)
    gc.collect()
    run = RunDirectory(Path(setting.run_path))
    config = Config.model_validate(repeat.config)
    training = Training(config, data, pretrained_of(config, states))
    checkpoint = run.confirm / f"{repeat.name}.safetensors"
    if checkpoint.is_file():
        training.resume(checkpoint)
    stop = StopWatch(run)
    saved = time.monotonic()
    for _ in training.epochs():
        over = stop.is_asked or (setting.deadline is not None and time.time() >= setting.deadline)
        if over and training.epoch < config.train.epochs:
            training.save(checkpoint)
            return None
        if time.monotonic() - saved >= CHECKPOINT_EVERY_S:
            training.save(checkpoint)
            saved = time.monotonic()
    write_json(
        _path(run, repeat),
        {
            "trial": repeat.trial,
            "index": repeat.index,
            "seed": config.train.seed,
            "objective": training.best_objective,
            "best_epoch": training.best_epoch,
            "epochs": training.epoch,
            "predicted": _predictions(training, data).tolist() if training.best_epoch else None,
        },
    )
    checkpoint.unlink(missing_ok=True)
    return training.best_objective


def _predictions(training: Training, data: TrainingData) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Classes of the validation images by the best epoch, in fp32, as a bundle would say."""
    config = training.config
    recipe = build_recipe(config.data, data.size_px, data.mean, data.std)
    with torch.device("meta"):
        model = build_model(
            config.model,
            num_classes=len(data.class_names),
            in_channels=recipe.channels,
            input_px=recipe.crop_px,
        )
    model.load_state_dict(training.best_state(), assign=True)
    model.eval()
    preprocess = Preprocess(recipe)
    images = preprocess.static(torch.tensor(data.validation.images))
    logits = logits_of(model, preprocess, images, precision="fp32")
    return np.asarray(logits.argmax(1).numpy(), dtype=np.int64)


def _path(run: RunDirectory, repeat: Repeat) -> Path:
    return run.confirm / f"{repeat.name}.json"


def _note(study: Study, wanted: list[Repeat], why: str | None) -> None:
    """Compare what there is, and write it into the study."""
    labels = load_validation_data(study.space.base.data).validation.labels
    right: dict[int, list[Any]] = {}
    trainings = []
    for repeat in wanted:
        if not _path(study.run, repeat).is_file():
            continue
        document = read_json(_path(study.run, repeat))
        predicted = document.pop("predicted")
        trainings.append(document)
        if predicted is not None:  # it diverged at once
            right.setdefault(repeat.trial, []).append(np.asarray(predicted) == labels)
    tried = [trial for trial in right if trial != 0]
    comparisons = [
        compare(
            np.stack(right[trial]),
            np.stack(right[0]),
            trial=trial,
            num_candidates=len(tried),
            seed=study.space.base.search.seed,
        )
        for trial in tried
        if 0 in right
    ]
    study.file.note(
        "confirm",
        {
            "wanted": len(wanted),
            "ended": why or "finished",
            "images": len(labels),
            "trainings": trainings,
            "comparisons": [asdict(comparison) for comparison in comparisons],
        },
    )
