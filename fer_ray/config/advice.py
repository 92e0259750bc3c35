"""What a valid search space cannot do well: told, not refused."""

from __future__ import annotations

from fer_ray.config.space import SearchSpace

TPE_STARTUP = 10
"""Trials that end before Optuna's TPE models anything; until then it draws at random."""
TRIALS_A_SLOT = 10
"""Trials for each slot that TPE wants: what runs at once knows nothing of each other's end."""


def advice(space: SearchSpace, slots: int | None = None) -> list[str]:
    """A line for each thing that will disappoint.

    Args:
        space: checked.
        slots: trials at once, where it is known.
    """
    base = space.base
    found = []
    if base.scheduler != "none":
        grace = base.scheduler.asha.grace_epochs
        warmup = _longest_warmup(space)
        if 0 < grace <= warmup:
            found.append(
                f"scheduler.asha.grace_epochs: {grace} does not outlast the longest warm-up, "
                f"{warmup} epochs: trials would be judged on what the warm-up leaves of them; use "
                f"grace_epochs: {warmup + 1} or more"
            )
        if grace >= base.train.epochs:
            found.append(
                f"scheduler.asha.grace_epochs: {grace} is not below train.epochs: "
                f"{base.train.epochs}: no trial is ever stopped; say scheduler: none if that is "
                "meant"
            )
    if base.search.sampler == "tpe" and space.holes:
        trials = base.search.trials
        if trials <= TPE_STARTUP:
            found.append(
                f"search.trials: {trials} is all random: TPE models nothing before {TPE_STARTUP} "
                "trials have ended"
            )
        elif slots is not None and trials < TRIALS_A_SLOT * slots:
            found.append(
                f"search.trials: {trials} on {slots} slots is hardly better than random: TPE "
                f"learns from trials that have ended, and wants {TRIALS_A_SLOT * slots}; or use "
                "sampler: random"
            )
    if base.confirm is not None and base.confirm.seeds < 2:
        found.append("confirm.seeds: 1 can tell nothing: what another seed does is not seen; use 3")
    return found


def _longest_warmup(space: SearchSpace) -> int:
    """In epochs, over all that the space can sample."""
    address = "train.schedule.cosine.warmup_epochs"
    for hole in space.holes:
        if hole.address == address:
            return int(max(hole.choices) if hole.choices else hole.high)
    branches = next((h.choices for h in space.holes if h.address == "train.schedule"), None)
    if branches is not None and "cosine" not in branches:
        return 0
    point = {"train.schedule": "cosine"} if branches else {}
    cosine = space.resolve(point).train.schedule.cosine
    return 0 if cosine is None else cosine.warmup_epochs
