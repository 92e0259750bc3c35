"""Random configurations of a space with the sizes of their networks; the cheapest, the dearest."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from fer_ray.config.space import SearchSpace, random_value
from fer_ray.search.watching import show

NUM_DRAWS = 100
"""Random configurations looked at for sizes, limits and the mean epoch."""


@dataclass(frozen=True)
class Sized:
    """A configuration and its network.

    Attributes:
        why_not: why it would never be trained; None where it would.
    """

    params: dict[str, Any]
    num_params: int
    macs: int
    why_not: str | None

    def text(self) -> str:
        """The searched values and the size, in one line."""
        values = ", ".join(f"{a.rpartition('.')[2]} {show(v)}" for a, v in self.params.items())
        size = f"{self.num_params / 1e6:.2f} M parameters, {self.macs / 1e6:.0f} M multiply-adds"
        return f"{values} ({size}{'' if self.why_not is None else '; ' + self.why_not})"


def draws_of(space: SearchSpace) -> list[Sized]:
    """Trial 0 and random draws, sized."""
    generator = random.Random(space.base.search.seed)
    sizes: dict[str, tuple[int, int]] = {}
    points = [space.complete({})]
    points += [space.draw(lambda hole: random_value(hole, generator)) for _ in range(NUM_DRAWS - 1)]
    return [_sized(space, params, sizes) for params in points]


def _sized(space: SearchSpace, params: dict[str, Any], sizes: dict[str, tuple[int, int]]) -> Sized:
    from fer_ray.models.build import size_of

    config = space.resolve(params)
    part = config.training_part()
    # Optimizers, augmentation and dropout do not change a network's size.
    (family,) = part["model"].values()
    shape = {name: value for name, value in family.items() if not name.endswith("dropout")}
    key = json.dumps([list(part["model"]), shape, part["data"]], sort_keys=True)
    if key not in sizes:
        sizes[key] = size_of(config)
    num_params, macs = sizes[key]
    limits = space.base.limits
    why = "forbidden" if space.is_forbidden(params) else None
    if limits.params is not None and num_params > limits.params:
        why = f"above the limit of {limits.params:,} parameters"
    elif limits.macs is not None and macs > limits.macs:
        why = f"above the limit of {limits.macs:,} multiply-adds"
    return Sized(params, num_params, macs, why)


def corner_of(space: SearchSpace, allowed: list[Sized], sign: int) -> Sized:
    """The dearest (sign 1) or cheapest (-1) configuration that may be trained.

    The best random draw, then every hole in turn at its ends as long as that goes further. The
    dearest also takes the largest batch: where memory ends.
    """

    def key(sized: Sized) -> tuple[float, ...]:
        values = space.resolve(sized.params)
        resnet = values.model.resnet
        trained = resnet.unfreeze if resnet is not None else 0
        return (sign * sized.macs, sign * trained, values.train.batch_size)

    best = max(allowed, key=key)
    sizes: dict[str, tuple[int, int]] = {}
    for hole in space.holes:
        for value in hole.extremes():
            if hole.address in best.params and best.params[hole.address] != value:
                params = space.complete({**best.params, hole.address: value})
                other = _sized(space, params, sizes)
                if other.why_not is None and key(other) > key(best):
                    best = other
    return best
