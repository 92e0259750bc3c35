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
from fer_ray.evaluation.packing import trained_network, validation_logits
from fer_ray.runs import RunDirectory
from fer_ray.search.confirm import Repeat, compare, repeats_of
from fer_ray.search.group_trial import GroupSearch
from fer_ray.search.mirror import Mirror
from fer_ray.search.resources import TRIAL_CPU, Slots
from fer_ray.search.run_files import RunFiles, run_files
from fer_ray.search.stopping import StopWatch
from fer_ray.search.study import Study
from fer_ray.search.trainable import (
    CHECKPOINT_EVERY_S,
    AloneSearch,
    TrialSetting,
    pretrained_of,
)
from fer_ray.store import read_json, write_json
from fer_ray.training.loop import Training

_LOOK_EVERY_S = 0.5
_MAX_RETRIES = 2


def confirm(
    study: Study,
    slots: Slots,
    work: AloneSearch | GroupSearch,
    say: Callable[[str], None],
    mirror: Mirror | None = None,
) -> str | None:
    """Train what is missing of a confirmation, then compare.

    Args:
        study: whose search is over.
        slots: the cluster's.
        work: what the trainings share; its deadline is that of the whole run.
        say: told of each training that ends.
        mirror: where the run's home is in object storage.

    Returns:
        why it ended before it was done (`stopped`, `time budget`), or None.
    """
    import ray

    stop = StopWatch(study.run)
    wanted = repeats_of(study)
    missing = [repeat for repeat in wanted if not _path(study.run, repeat).is_file()]
    if missing:
        say(f"confirming: {len(missing)} trainings on fresh seeds")
    deadline = work.setting.deadline
    under_way: dict[Any, Repeat] = {}
    why: str | None = None
    while missing or under_way:
        if mirror is not None:
            mirror.tick()
        if stop.is_asked:
            why = "stopped"
        elif deadline is not None and time.time() >= deadline:
            why = "time budget"
        while missing and why is None and len(under_way) < slots.count:
            repeat = missing.pop(0)
            under_way[_start(repeat, slots, work)] = repeat
        if not under_way:
            break
        ended, _ = ray.wait(list(under_way), timeout=_LOOK_EVERY_S)
        for reference in ended:
            repeat = under_way.pop(reference)
            result = ray.get(reference)
            if result is not None:
                if mirror is not None:
                    mirror.fetch(_path(study.run, repeat))
                say(f"confirmation of trial {repeat.trial}, seed {repeat.index}: {result:.4f}")
    _note(study, wanted, why)
    return why


def _start(repeat: Repeat, slots: Slots, work: AloneSearch | GroupSearch) -> Any:
    """Begin one training somewhere; gives the reference to its result."""
    import ray

    if isinstance(work, GroupSearch):
        group = ray.remote(num_cpus=TRIAL_CPU, max_retries=_MAX_RETRIES)(train_group_repeat)
        return group.remote(repeat, work)
    alone = ray.remote(num_cpus=slots.cpu, num_gpus=slots.gpu, max_retries=_MAX_RETRIES)(
        train_repeat
    )
    return alone.remote(repeat, work.data, work.states, work.setting)


def train_repeat(
    repeat: Repeat, data: TrainingData, states: Mapping[str, Any], setting: TrialSetting
) -> float | None:
    """One training, in a worker; its objective, or None where it was stopped before its end."""
    torch.set_num_threads(setting.num_threads)
    gc.collect()
    config = Config.model_validate(repeat.config)
    training = Training(config, data, pretrained_of(config, states))
    with run_files(setting.run_path) as files:
        return _train_repeat(repeat, training, data, setting, files)


def train_group_repeat(repeat: Repeat, group: GroupSearch) -> float | None:
    """`train_repeat` by a group of workers; this process only starts them."""
    trace = f"confirm/{repeat.name}.error.txt"
    group.run(_repeat_rank, {"repeat": repeat}, f"confirm-{repeat.name}", trace)
    with run_files(group.setting.run_path) as files:
        path = _path(files.run, repeat)
        return float(read_json(path)["objective"]) if files.copy_in(path) else None


def _repeat_rank(loop: dict[str, Any]) -> None:
    search, repeat = loop["group"], loop["repeat"]
    training, data = search.training(Config.model_validate(repeat.config))
    with run_files(search.setting.run_path) as files:
        _train_repeat(repeat, training, data, search.setting, files)


def _train_repeat(
    repeat: Repeat,
    training: Training,
    data: TrainingData,
    setting: TrialSetting,
    files: RunFiles,
) -> float | None:
    """Train from the last checkpoint to the end; rank 0 writes, and looks at clock and run."""
    config, group = training.config, training.group
    checkpoint = files.run.confirm / f"{repeat.name}.checkpoint.safetensors"
    if files.copy_in(checkpoint):
        training.resume(checkpoint)
    saved = time.monotonic()
    for _ in training.epochs():
        late = setting.deadline is not None and time.time() >= setting.deadline
        over = late or files.is_stop_asked
        if group.main_says(over and training.epoch < config.train.epochs):
            if group.is_main:
                training.save(checkpoint)
                files.copy_out(checkpoint)
            return None
        if group.is_main and time.monotonic() - saved >= CHECKPOINT_EVERY_S:
            training.save(checkpoint)
            files.copy_out(checkpoint)
            saved = time.monotonic()
    if not group.is_main:
        return None
    path = _path(files.run, repeat)
    write_json(
        path,
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
    files.copy_out(path)
    files.remove(checkpoint)
    return training.best_objective


def _predictions(training: Training, data: TrainingData) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Classes of the validation images by the best epoch, in fp32, as a bundle would say."""
    model, recipe = trained_network(training.config, data, training.best_state())
    return np.asarray(validation_logits(model, recipe, data).argmax(axis=1), dtype=np.int64)


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
