"""Options that the schema names and this version does not build: refused, never ignored."""

from __future__ import annotations

from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace
from fer_ray.errors import ConfigError, Problem


def refuse_not_yet(space: SearchSpace | Config) -> None:
    """Refuse what would be ignored.

    Raises:
        ConfigError: one problem for each such option, with what to use instead.
    """
    config = space.base if isinstance(space, SearchSpace) else space
    refused = {
        "resources.per_trial.workers above 1": config.resources.per_trial.workers > 1,
    }
    problems = [
        Problem("config", 0, 0, f"{name} is not built yet in this version; leave it out")
        for name, used in refused.items()
        if used
    ]
    if problems:
        raise ConfigError(problems)
