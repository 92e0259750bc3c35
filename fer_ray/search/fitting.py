"""The trials of one session under Ray Tune: the data put out, the slots kept busy, the run kept up.

Tune only starts processes and carries reports; what is tried and who goes on is the study's word.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fer_ray.search.event_files import EventFiles
from fer_ray.search.live import LiveTrial
from fer_ray.search.mirror import Mirror
from fer_ray.search.progress import Progress
from fer_ray.search.resources import TRIAL_CPU, Slots
from fer_ray.search.results import drop_checkpoint, update_best, write_status, write_trials
from fer_ray.search.study import Study
from fer_ray.store import is_remote

if TYPE_CHECKING:
    from fer_ray.search.group_trial import GroupSearch
    from fer_ray.search.trainable import AloneSearch, TrialSetting

_STATUS_EVERY_S = 1.0
_TABLE_EVERY_S = 10.0
_MAX_AHEAD = 16
"""Trials handed to Tune before they have a slot, at most; each knows a little less."""
_MANY_SLOTS = 16
"""From here on all free slots are filled at once; on fewer, trials begin in their order."""


def put_out(
    study: Study,
    slots: Slots,
    states: dict[str, dict[str, Any]],
    setting: TrialSetting,
    say: Callable[[str], None],
) -> AloneSearch | GroupSearch:
    """Put the data and the pretrained weights where all trials reach them."""
    import ray

    from fer_ray.data.ray_data import put_training_data, shard_training_data
    from fer_ray.search.group_trial import GroupSearch
    from fer_ray.search.trainable import AloneSearch
    from fer_ray.training.distributed import Ranks

    data = study.space.base.data
    if slots.workers == 1:
        return AloneSearch(put_training_data(data, say), ray.put(states), setting)
    # Every worker's node must see what Ray Train notes.
    storage = str(study.run.ray)
    if is_remote(setting.run_path):
        place, mark, options = setting.run_path.partition("?")
        storage = f"{place}/ray{mark}{options}"
    each = Ranks(
        slots.workers,
        slots.cpu / slots.workers - TRIAL_CPU,  # leaves room for the trial's own process
        slots.gpu / slots.workers,
        storage=storage,
        name=f"session-{len(study.sessions)}",
    )
    return GroupSearch(shard_training_data(data, slots.workers), ray.put(states), setting, each)


def fit(
    study: Study,
    trainable: Callable[..., None],
    slots: Slots,
    progress: Progress,
    deadline: float | None,
    events: EventFiles | None = None,
    mirror: Mirror | None = None,
) -> tuple[str, BaseException | str | None]:
    """Run trials of any trainable that reports as `train_trial` does, until the study is done.

    Returns:
        how it ended (docs/design.md, `sessions`), and what broke the machine, or None.
    """
    from ray import tune

    from fer_ray.search.ray_adapters import (
        MAX_FAILURES,
        Silence,
        StudyBridge,
        StudyCallback,
        StudyScheduler,
        StudySearcher,
    )

    written = {"status": 0.0, "table": 0.0}

    def on_tick() -> None:
        now = time.monotonic()
        if now - written["status"] >= _STATUS_EVERY_S:
            written["status"] = now
            write_status(study)
        if now - written["table"] >= _TABLE_EVERY_S:
            written["table"] = now
            write_trials(study)
        if mirror is not None:
            mirror.tick()

    def on_change(trial: LiveTrial) -> None:
        progress.on_change(trial)
        if events is not None:
            events.on_change(trial)
        if mirror is not None:
            mirror.take_in(trial)
        if trial.ended is not None:
            drop_checkpoint(study.run, trial)
            update_best(study)

    # The places of a group's workers are taken by Ray Train: Tune does not see them.
    is_group = slots.workers > 1
    # A trial that ends hands its process on only where another one waits already.
    ahead = max(1, min(_MAX_AHEAD, slots.count // 2))
    at_once = slots.count if slots.count >= _MANY_SLOTS else 0
    bridge = StudyBridge(
        study,
        on_change,
        on_tick=on_tick,
        deadline=deadline,
        max_concurrent=slots.count if is_group else slots.limit,
        num_slots=at_once,
        ahead=ahead,
    )
    if study.is_done():
        return "finished", None
    # The bridge says when it is enough; a trial whose process is starting still waits for Tune.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once + ahead)
    name = f"session-{len(study.sessions)}"
    shutil.rmtree(study.run.ray, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(
            trainable, {"cpu": TRIAL_CPU} if is_group else {"cpu": slots.cpu, "gpu": slots.gpu}
        ),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(bridge),
            scheduler=StudyScheduler(bridge),
            num_samples=-1,
            reuse_actors=not is_group,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(study.run.ray),
            name=name,
            verbose=0,
            callbacks=[StudyCallback(bridge), Silence()],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    tuner.fit()
    how = bridge.why_over or "finished"
    if how in ("time budget", "target"):
        # Left by an earlier session, and no slot was free for them before the end.
        for live in study.unfinished:
            study.finish(live.number, "target elsewhere" if how == "target" else how)
    if study.is_done() and bridge.fatal is None:
        how = "finished"
    return how, bridge.fatal
