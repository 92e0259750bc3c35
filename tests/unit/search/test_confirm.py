"""Confirmation is honest: a configuration does not beat itself, and a real gain is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fer_ray.config.space import parse_space
from fer_ray.search.asha import rungs_of
from fer_ray.search.confirm import compare, share_of_budget


def trained(generator: np.random.Generator, ability: Any, num_seeds: int, spread: float) -> Any:
    """Which images networks of one configuration get right: bool [num_seeds, N].

    Args:
        generator: of this configuration's luck.
        ability: float [N], log-odds of each image.
        num_seeds: trainings.
        spread: deviation between seeds in log-odds; lifts or lowers all images of a training.
    """
    shift = generator.normal(0.0, spread, (num_seeds, 1))
    return generator.random((num_seeds, ability.size)) < 1 / (1 + np.exp(-ability - shift))


@pytest.mark.parametrize("spread", [0.0, 0.15])
@pytest.mark.parametrize("num_seeds", [2, 3])
def test_a_configuration_does_not_beat_itself(spread: float, num_seeds: int) -> None:
    generator = np.random.default_rng(4)
    verdicts = []
    for pair in range(200):
        ability = generator.normal(1.0, 2.0, 400)
        one = trained(generator, ability, num_seeds, spread)
        other = trained(generator, ability, num_seeds, spread)
        verdicts.append(compare(one, other, seed=pair).verdict)
    assert verdicts.count("beats") <= 10, "5 % of 200"
    assert verdicts.count("is beaten by") <= 10


def test_a_real_gain_is_seen() -> None:
    generator = np.random.default_rng(5)
    ability = generator.normal(0.8, 2.0, 3000)
    better = trained(generator, ability + 0.6, 3, 0.05)
    plain = trained(generator, ability, 3, 0.05)
    found = compare(better, plain, trial=7)
    assert found.verdict == "beats"
    assert (found.trial, found.low > 0) == (7, True)
    assert found.low < found.difference < found.high
    assert found.smallest < found.difference
    assert compare(plain, better).verdict == "is beaten by"


def test_one_seed_tells_nothing() -> None:
    right = np.ones((1, 100), bool)
    assert compare(right, ~right).verdict == "cannot tell"


def test_more_candidates_widen_the_interval() -> None:
    generator = np.random.default_rng(6)
    ability = generator.normal(1.0, 2.0, 500)
    one, other = (trained(generator, ability, 3, 0.1) for _ in range(2))
    alone, among = compare(one, other), compare(one, other, num_candidates=5)
    assert among.high - among.low > alone.high - alone.low
    assert among.smallest > alone.smallest


def test_the_budget_is_shared_by_epochs() -> None:
    text = (
        "version: 1\nname: a\nmodel: {cnn: {head_dropout: {float: [0.0, 0.5]}}}\n"
        "train: {epochs: 9}\nsearch: {trials: 30}\nscheduler: {asha: {grace_epochs: 1}}\n"
    )
    rungs = rungs_of(1, 3, 9)
    assert share_of_budget(parse_space(text, "a"), rungs) == 0.0
    confirmed = parse_space(text + "confirm: {top: 1, seeds: 2}\n", "a")
    # 2 configurations x 2 seeds x 9 epochs; 30 trials to 1, 10 to 3, 10/3 to 9 epochs.
    searched = 30 * 1 + 10 * 2 + 30 / 9 * 6
    assert share_of_budget(confirmed, rungs) == pytest.approx(36 / (36 + searched))
    greedy = parse_space(text + "confirm: {top: 9, seeds: 9}\n", "a")
    assert share_of_budget(greedy, rungs) == 0.5
