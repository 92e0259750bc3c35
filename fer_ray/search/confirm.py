"""Is the gain real? The best configurations again on fresh seeds, beside the defaults.

The best of many trials looks better than it is: it was chosen for its luck. So the configurations
of the best trials and of trial 0 are trained again, on seeds that the search has not seen, and
compared image by image.

The interval of a difference has two sources, both counted: which images happen to be in the
validation split (a bootstrap over images of each image's correctness, averaged over seeds, paired)
and which seeds happened to be drawn (Student's t over seeds; a good seed lifts all images together,
which no bootstrap over images can see). Measured on 2 x 200 simulated pairs of one configuration
against itself: see tests/unit/search/test_confirm.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.config.space import SearchSpace
from fer_ray.search.live import LiveTrial
from fer_ray.search.points import num_trials
from fer_ray.search.sampling import derived_seed
from fer_ray.search.study import Study

_NUM_DRAWS = 4000
_LEVEL = 0.05
"""Error of one comparison, both sides; shared among the candidates (Bonferroni)."""
_LARGEST_SHARE = 0.5
"""Of the time budget that confirmation may take."""


@dataclass(frozen=True)
class Repeat:
    """One training of a confirmation.

    Attributes:
        trial: whose configuration is trained.
        index: from 0; seeds follow from the search's seed, the trial and this.
        config: resolved, with the fresh seed.
    """

    trial: int
    index: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.trial}-{self.index}"


@dataclass(frozen=True)
class Comparison:
    """A candidate against the defaults.

    Attributes:
        trial: the candidate.
        accuracy, default_accuracy: on the validation images, averaged over seeds.
        difference: of the two.
        low, high: its interval, at 95 % over all candidates together.
        smallest: the smallest difference that could have been told from none.
        verdict: `beats`, `is beaten by` or `cannot tell`.
    """

    trial: int
    accuracy: float
    default_accuracy: float
    difference: float
    low: float
    high: float
    smallest: float
    verdict: str


def candidates(study: Study) -> list[LiveTrial]:
    """Trial 0, then the best so many configurations besides."""
    wanted = study.space.base.confirm
    assert wanted is not None
    best: list[LiveTrial] = []
    for live in study.ranking():
        known = {0, *(other.group for other in best)}
        if live.group not in known and live.ended not in (None, "pruned", "failed"):
            best.append(live)
    return [study.trials[0], *best[: wanted.top]] if 0 in study.trials else []


def repeats_of(study: Study) -> list[Repeat]:
    """Every training that the confirmation wants, the defaults' first."""
    wanted = study.space.base.confirm
    assert wanted is not None
    repeats = []
    for index in range(wanted.seeds):
        for live in candidates(study):
            seed = derived_seed(
                study.space.base.search.seed, f"confirm/{live.asked.number}/{index}"
            )
            config = live.asked.config
            train = config.train.model_copy(update={"seed": seed})
            part = config.model_copy(update={"train": train}).training_part()
            repeats.append(Repeat(live.number, index, part))
    return repeats


def compare(
    candidate: npt.NDArray[np.bool_],
    defaults: npt.NDArray[np.bool_],
    *,
    trial: int = 0,
    num_candidates: int = 1,
    seed: int = 0,
) -> Comparison:
    """Compare two configurations on the same images.

    Args:
        candidate: bool [S, N], whether the network of seed s was right about image n.
        defaults: bool [T, N].
        trial: for the result.
        num_candidates: compared in one confirmation; they share the error.
        seed: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    per_image = candidate.mean(axis=0) - defaults.mean(axis=0)
    difference = float(per_image.mean())
    # Few differences are possible (multiples of one over the seeds), so a resample of the images is
    # a multinomial draw of how often each difference comes.
    values, counts = np.unique(per_image, return_counts=True)
    resampled = generator.multinomial(per_image.size, counts / per_image.size, _NUM_DRAWS)
    draws = resampled @ values / per_image.size
    num_seeds = min(len(candidate), len(defaults))
    accuracy, default_accuracy = float(candidate.mean()), float(defaults.mean())
    if num_seeds < 2:
        # One seed says nothing of what another would have done.
        return Comparison(
            trial, accuracy, default_accuracy, difference, -1.0, 1.0, 1.0, "cannot tell"
        )
    variance = sum(rows.mean(axis=1).var(ddof=1) / len(rows) for rows in (candidate, defaults))
    freedom = len(candidate) + len(defaults) - 2
    draws = draws + generator.standard_t(freedom, _NUM_DRAWS) * np.sqrt(variance)
    level = _LEVEL / num_candidates
    low, high = (float(q) for q in np.quantile(draws, [level / 2, 1 - level / 2]))
    verdict = "beats" if low > 0 else "is beaten by" if high < 0 else "cannot tell"
    return Comparison(
        trial, accuracy, default_accuracy, difference, low, high, (high - low) / 2, verdict
    )


def share_of_budget(space: SearchSpace, rungs: tuple[int, ...]) -> float:
    """Which part of the time budget the confirmation is left, by the epochs of both.

    Of a search with ASHA one trial in `reduction` passes each rung.
    """
    base = space.base
    if base.confirm is None:
        return 0.0
    confirming = (base.confirm.top + 1) * base.confirm.seeds * base.train.epochs
    reduction = base.scheduler.asha.reduction if base.scheduler != "none" else 1
    going, searched, before = float(num_trials(space)), 0.0, 0
    for rung in (*rungs, base.train.epochs):
        searched += going * (rung - before)
        before, going = rung, going / reduction
    return min(_LARGEST_SHARE, confirming / (confirming + searched))
