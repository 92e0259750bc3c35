"""Which points of a space a search tries before it samples, and which it never trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fer_ray.config.space import SearchSpace
from fer_ray.errors import ConfigError
from fer_ray.search.sampling import same_point


def num_trials(space: SearchSpace) -> int:
    """Trials that a whole search trains: each configuration on `search.repeat` seeds."""
    return num_configurations(space) * space.base.search.repeat


def num_configurations(space: SearchSpace) -> int:
    """Configurations wanted: `search.trials`, or the allowed points of a smaller grid."""
    search = space.base.search
    return len(grid_points(space)) if search.sampler == "grid" else search.trials


def grid_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Allowed points of the grid, the defaults first, at most as many as are wanted."""
    defaults = space.complete({})
    points = [defaults]
    for params in space.grid():
        if len(points) >= space.base.search.trials:
            break
        if not same_point(params, defaults) and rejection(space, params) is None:
            points.append(params)
    return points


def rejection(space: SearchSpace, params: Mapping[str, Any]) -> str | None:
    """Why a configuration is never trained: forbidden, or above the limits; None if it may be."""
    if space.is_forbidden(params):
        return "forbidden"
    try:
        config = space.resolve(params)
    except ConfigError as error:
        # A rule between values that the checks of the space, fifty random points, did not meet.
        return f"not valid: {error.message}"
    limits = space.base.limits
    if limits.params is None and limits.macs is None:
        return None
    from fer_ray.models.build import size_of

    num_params, macs = size_of(config)
    if limits.params is not None and num_params > limits.params:
        return f"{num_params:,} parameters, the limit is {limits.params:,}"
    if limits.macs is not None and macs > limits.macs:
        return f"{macs:,} multiply-adds, the limit is {limits.macs:,}"
    return None
