"""Spaces that are valid and cannot work well: what `check` and `plan` warn of."""

from __future__ import annotations

from collections.abc import Iterator

from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace

TPE_STARTUP = 10
"""Trials that Optuna's TPE draws at random before it models anything."""
TRIALS_A_SLOT = 10


def advice(space: SearchSpace, slots: int | None = None) -> list[str]:
    """Warnings, one sentence each with its remedy.

    Args:
        slots: trials at once; None where it is not known.
    """
    return [*_scheduler_advice(space), *_sampler_advice(space.base, slots)]


def _scheduler_advice(space: SearchSpace) -> Iterator[str]:
    base = space.base
    if base.scheduler == "none":
        return
    grace = base.scheduler.asha.grace_epochs
    warmup = _longest_warmup(space)
    if warmup >= grace:
        yield (
            f"ASHA's first rung is at epoch {grace}, but warm-up lasts up to {warmup}: trials are "
            f"judged before they learn; set scheduler.asha.grace_epochs to {warmup + 1} or more"
        )
    if "onecycle" in _schedules(space):
        yield (
            "a one-cycle schedule is at its highest rate where ASHA judges it, and loses to the "
            "others whatever its end; use scheduler: none with it"
        )
    if grace >= base.train.epochs:
        yield (
            f"grace_epochs {grace} is not below train.epochs {base.train.epochs}: ASHA stops "
            "nothing"
        )


def _sampler_advice(base: Config, slots: int | None) -> Iterator[str]:
    search = base.search
    if search.sampler != "tpe":
        return
    if search.trials <= TPE_STARTUP:
        yield (
            f"{search.trials} trials with sampler: tpe are all random: it models nothing before "
            f"{TPE_STARTUP} have ended"
        )
    elif slots is not None and search.trials < TRIALS_A_SLOT * slots:
        yield (
            f"{search.trials} trials on {slots} slots: TPE learns little from so few rounds; give "
            f"it {TRIALS_A_SLOT * slots} trials, or fewer slots (resources.max_concurrent)"
        )


def _schedules(space: SearchSpace) -> tuple[str, ...]:
    for hole in space.holes:
        if hole.address == "train.schedule":
            return tuple(str(choice) for choice in hole.choices)
    return (space.base.train.schedule.branch,)


def _longest_warmup(space: SearchSpace) -> int:
    address = "train.schedule.cosine.warmup_epochs"
    for hole in space.holes:
        if hole.address == address:
            return int(max(hole.choices) if hole.choices else hole.high)
    if "cosine" not in _schedules(space):
        return 0
    cosine = space.resolve({"train.schedule": "cosine"}).train.schedule.cosine
    return cosine.warmup_epochs if cosine is not None else 0
