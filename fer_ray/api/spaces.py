"""The verb that reads a search space, and how `--data` joins its overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_ray.config.space import SearchSpace, load_space


def check(space: str | Path, overrides: Sequence[str] = (), data: str | None = None) -> SearchSpace:
    """Read a search space and check all of it.

    Raises:
        ConfigError: everything that is wrong, at once.
    """
    return load_space(Path(space), with_data(overrides, data))


def with_data(overrides: Sequence[str], data: str | None) -> list[str]:
    """The overrides, with the data set that `--data` names as the last: it wins."""
    return [*overrides, *([f"data.source={data}"] if data is not None else [])]
