"""TPE with ASHA against random search without stopping, at equal epochs, on recorded curves.

    python benchmarks/search_surrogate.py [--pairs 20] [--full-trials 27] [--slots 2] [RUN ...]

The surrogate stands for a training: a regression (extra trees) from a configuration to its whole
learning curve, plus the noise of a seed. It is fitted to benchmarks/data/surrogate_curves.csv, or
to the trials of the runs given (`fer-ray tune` with `scheduler: none`: stopped curves are left
out).

What was recorded (benchmarks/experiments/record_curves.py): uniform draws from
data/surrogate_space.yaml, tiny networks on 4,096 training images of FER2013, 9 epochs, all 3,589
validation images, one thread of a shared 2-core machine, nothing stopped. The noise is that of
surrogate_repeats.csv: eight of the same draws on a second seed, seven of them on a third. So: real
curves, but of small networks at 20 to 45 % accuracy, and between the recorded points the
surrogate's opinion. The script prints how well it predicts points that it has not seen. A gain here
says that the machinery finds good configurations sooner on curves like these; it is no promise for
another space.

Each pair has one seed for both sides: the same trial 0, the same noise for the same configuration.
A side's score is the true (noise-free) accuracy of the trial that it would choose. The last line on
stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import heapq
import json
import math
import statistics
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict

from fer_ray.config.holes import Hole
from fer_ray.config.space import SearchSpace, load_space
from fer_ray.search.asha import Asha, rungs_of
from fer_ray.search.reading import read_run

HERE = Path(__file__).parent / "data"
Floats = npt.NDArray[np.float64]
SIDES = {
    "tpe+asha": (True, True),
    "tpe": (True, False),
    "random+asha": (False, True),
    "random": (False, False),
}
_T95 = 2.093
"""Student's t for 20 pairs."""


class Surrogate:
    """From configurations to curves.

    Args:
        space: of the configurations.
        points: recorded configurations.
        curves: float [N, epochs], their objective.
        noise: float [M, epochs], what a seed adds, mean 0.
    """

    def __init__(
        self, space: SearchSpace, points: list[dict[str, Any]], curves: Floats, noise: Floats
    ) -> None:
        self.space = space
        self.noise = noise
        self.features = np.array([self._features(point) for point in points])
        self.curves = curves
        self.forest = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0, n_jobs=1)
        self.forest.fit(self.features, curves)
        self._known: dict[str, Floats] = {}

    def _features(self, params: dict[str, Any]) -> list[float]:
        row: list[float] = []
        for hole in self.space.holes:
            value = params.get(hole.address)
            if hole.choices and not isinstance(hole.choices[0], int | float):
                row += [float(value == choice) for choice in hole.choices]
            elif value is None:
                row += [-1.0]
            else:
                row += [_share(hole, value)]
        return row

    def curve(self, params: dict[str, Any]) -> Floats:
        """The true curve, float [epochs]."""
        key = json.dumps(params, sort_keys=True)
        if key not in self._known:
            self._known[key] = self.forest.predict(np.array([self._features(params)]))[0]
        return self._known[key]

    def observed(self, params: dict[str, Any], seed: int) -> Floats:
        """The curve as a training with a seed would show it."""
        text = json.dumps([params, seed], sort_keys=True).encode()
        pick = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        row = self.noise[pick % len(self.noise)]
        return self.curve(params) + (row if pick >> 63 else -row)

    def fit_quality(self) -> dict[str, float]:
        """On points left out of the fit, ten parts: of the last epoch's value."""
        predicted = cross_val_predict(self.forest, self.features, self.curves, cv=10)
        truth, guess = self.curves[:, -1], predicted[:, -1]
        ranks = np.corrcoef(_ranks(truth), _ranks(guess))[0, 1]
        spread = float(((truth - truth.mean()) ** 2).sum())
        return {
            "r2": round(1 - float(((truth - guess) ** 2).sum()) / spread, 3),
            "rank_correlation": round(float(ranks), 3),
            "seed_noise_sd": round(float(self.noise.std()), 4),
        }


def _share(hole: Hole, value: Any) -> float:
    low, high = (min(hole.choices), max(hole.choices)) if hole.choices else (hole.low, hole.high)
    if hole.kind == "log" or hole.choices:
        return math.log(value / low) / math.log(high / low)
    return float(value - low) / (high - low)


def _ranks(values: Floats) -> Floats:
    return values.argsort().argsort().astype(np.float64)


# --- what was recorded ----------------------------------------------------------------------------


def read_table(space: SearchSpace, path: Path) -> tuple[list[int], list[dict[str, Any]], Floats]:
    """Numbers, configurations and whole curves of a table."""
    numbers, points, curves = [], [], []
    holes = {hole.address: hole for hole in space.holes}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            numbers.append(int(row["number"]))
            points.append({a: _value(hole, row[a]) for a, hole in holes.items() if row[a]})
            values = [row[f"epoch_{e + 1}"] for e in range(space.base.train.epochs)]
            curves.append([float(v) if v else math.nan for v in values])
    return numbers, points, _filled(np.array(curves))


def _value(hole: Hole, text: str) -> Any:
    if hole.choices:
        return next(choice for choice in hole.choices if str(choice) == text)
    return int(text) if hole.kind == "int" else float(text)


def _filled(curves: Floats) -> Floats:
    """Epochs after a divergence: what guessing gives, as far as the table knows."""
    return np.where(np.isnan(curves), np.nanmin(curves), curves)


def read_runs(paths: Iterable[Path]) -> tuple[SearchSpace, list[dict[str, Any]], Floats]:
    """The complete trials of searches over one space."""
    histories = [read_run(path) for path in paths]
    space = histories[0].space
    assert space is not None, "the run's space cannot be read"
    whole = [
        trial
        for history in histories
        for trial in history.trained
        if trial.epoch == space.base.train.epochs
    ]
    curves = [[row.get("objective", row["best_objective"]) for row in t.curve] for t in whole]
    return space, [trial.params for trial in whole], np.array(curves, dtype=np.float64)


def noise_of(space: SearchSpace, table: Path, repeats: Path) -> Floats:
    """Deviations of each repeated draw from its own mean curve, for samples of their size."""
    groups: dict[int, list[Floats]] = {}
    for path in (table, repeats):
        numbers, _, curves = read_table(space, path)
        for number, curve in zip(numbers, curves, strict=True):
            groups.setdefault(number, []).append(curve)
    rows = []
    for group in groups.values():
        if len(group) > 1:
            stacked = np.array(group)
            rows += list(
                (stacked - stacked.mean(axis=0)) * math.sqrt(len(group) / (len(group) - 1))
            )
    return np.array(rows)


# --- searches -------------------------------------------------------------------------------------


def search(
    surrogate: Surrogate, seed: int, budget: int, slots: int, *, use_tpe: bool, use_asha: bool
) -> tuple[float, int]:
    """One search in simulated time, an epoch a tick in each slot, until the epochs are spent.

    Returns:
        the true best-so-far value of the trial that it would choose, and the trials begun.
    """
    space = surrogate.space
    base = space.base
    epochs = base.train.epochs
    rungs: tuple[int, ...] = ()
    reduction = 2
    if use_asha and base.scheduler != "none":
        reduction = base.scheduler.asha.reduction
        rungs = rungs_of(base.scheduler.asha.grace_epochs, reduction, epochs)
    asha = Asha(rungs, reduction, exempt=frozenset({0}))
    study = optuna.create_study(direction="maximize", sampler=_sampler(use_tpe, seed))
    study.enqueue_trial(space.complete({}))
    found: list[tuple[float, float]] = []
    running: list[tuple[int, int, optuna.Trial, dict[str, Any], Floats]] = []
    spent = order = 0

    def begin(tick: int) -> None:
        nonlocal order
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = study.ask()
            params = space.draw(lambda hole: _suggest(trial, hole))
        order += 1
        heapq.heappush(running, (tick + 1, order, trial, params, surrogate.observed(params, seed)))

    for _ in range(slots):
        begin(0)
    at: dict[int, int] = {}
    while running and spent < budget:
        tick, mark, trial, params, curve = heapq.heappop(running)
        epoch = at[trial.number] = at.get(trial.number, 0) + 1
        spent += 1
        best = float(curve[:epoch].max())
        trial.report(best, epoch)
        decision = asha.decide(trial.number, epoch, best)
        stops = decision is not None and decision.stop
        if stops or epoch == epochs:
            state = optuna.trial.TrialState.PRUNED if stops else None
            study.tell(trial, None if stops else best, state=state)
            begin(tick)
        else:
            heapq.heappush(running, (tick + 1, mark, trial, params, curve))
        truth = surrogate.curve(params)[int(curve[:epoch].argmax())]
        found.append((best, float(truth)))
    return max(found)[1], len(at)


def _sampler(use_tpe: bool, seed: int) -> BaseSampler:
    if not use_tpe:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _suggest(trial: optuna.Trial, hole: Hole) -> Any:
    return trial._suggest(hole.address, distribution_of(hole))


def distribution_of(hole: Hole) -> BaseDistribution:
    if hole.choices:
        return optuna.distributions.CategoricalDistribution(hole.choices)
    if hole.kind == "int":
        return optuna.distributions.IntDistribution(
            int(hole.low), int(hole.high), step=int(hole.step or 1)
        )
    return optuna.distributions.FloatDistribution(
        hole.low, hole.high, step=hole.step, log=hole.kind == "log"
    )


def interval(gains: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of paired differences (Student's t; its quantile is for 20 pairs)."""
    mean = statistics.fmean(gains)
    half = _T95 * statistics.stdev(gains) / math.sqrt(len(gains))
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--full-trials", type=int, default=27, help="budget, in full trainings")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = load_space(HERE / "surrogate_space.yaml")
    table, repeats = HERE / "surrogate_curves.csv", HERE / "surrogate_repeats.csv"
    _, points, curves = read_table(space, table)
    noise = noise_of(space, table, repeats)
    if arguments.runs:
        space, points, curves = read_runs(arguments.runs)
        scale = np.linspace(0, noise.shape[1] - 1, curves.shape[1]).round().astype(int)
        noise = noise[:, scale]
    surrogate = Surrogate(space, points, curves, noise)
    quality = surrogate.fit_quality()
    best = max(float(curve.max()) for curve in curves)
    print(f"{len(points)} recorded configurations, best {best:.4f}; unseen points: {quality}")
    budget = arguments.full_trials * space.base.train.epochs
    scores: dict[str, list[float]] = {side: [] for side in SIDES}
    begun: dict[str, list[int]] = {side: [] for side in SIDES}
    for pair in range(arguments.pairs):
        for side, (use_tpe, use_asha) in SIDES.items():
            score, trials = search(
                surrogate, pair, budget, arguments.slots, use_tpe=use_tpe, use_asha=use_asha
            )
            scores[side].append(score)
            begun[side].append(trials)
    gains = {}
    for side in SIDES:
        mean, low, high = interval(
            [a - b for a, b in zip(scores[side], scores["random"], strict=True)]
        )
        gains[side] = [round(mean, 5), round(low, 5), round(high, 5)]
        print(
            f"{side:<12} {statistics.fmean(scores[side]):.4f}  "
            f"{statistics.fmean(begun[side]):5.1f} trials  against random: {100 * mean:+.2f} "
            f"points ({100 * low:+.2f} to {100 * high:+.2f})"
        )
    print(
        json.dumps(
            {
                "recorded": len(points),
                "surrogate": quality,
                "budget_epochs": budget,
                "pairs": arguments.pairs,
                "slots": arguments.slots,
                "gain_over_random": gains,
                "wins": sum(
                    a > b for a, b in zip(scores["tpe+asha"], scores["random"], strict=True)
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
