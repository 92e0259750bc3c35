"""The paired test and its intervals, against scipy and written-out formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fer_ray.evaluation.paired import (
    ALPHA,
    EXACT_BELOW,
    difference_interval,
    mcnemar,
    smallest_difference,
)


@given(only_a=st.integers(0, 300), only_b=st.integers(0, 300))
def test_mcnemar_agrees_with_scipy(only_a: int, only_b: int) -> None:
    found, total = mcnemar(only_a, only_b), only_a + only_b
    if total < EXACT_BELOW:
        assert found.method == "exact binomial"
        assert found.statistic is None
        expected = stats.binomtest(only_a, total).pvalue if total else 1.0
    else:
        assert found.method == "chi-squared with continuity correction"
        statistic = max(0, abs(only_a - only_b) - 1) ** 2 / total
        assert found.statistic == pytest.approx(statistic, abs=1e-12)
        expected = stats.chi2.sf(statistic, 1)
    assert found.p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_published_tables() -> None:
    # Agresti 1990, p. 350, approval of the prime minister: 150 and 86 changed their minds.
    found = mcnemar(150, 86)
    assert found.statistic == pytest.approx(63**2 / 236)
    assert found.p_value == pytest.approx(4.115e-05, rel=1e-3)
    # Five to nothing is not yet significant, six to nothing is.
    assert mcnemar(5, 0).p_value == 0.0625
    assert mcnemar(6, 0).p_value == 0.03125


def test_the_difference_interval_is_its_formula() -> None:
    low, high = difference_interval(30, 10, 198)
    a, b = 31 / 200, 11 / 200
    half = 1.959963984540054 * math.sqrt((a + b - (a - b) ** 2) / 200)
    assert (low, high) == pytest.approx((a - b - half, a - b + half))
    mirrored = difference_interval(10, 30, 198)
    assert mirrored == pytest.approx((-high, -low))
    assert difference_interval(0, 1, 1) == (-1.0, pytest.approx(difference_interval(0, 1, 1)[1]))


def test_the_difference_interval_keeps_its_level() -> None:
    generator = np.random.default_rng(0)
    for count, chance_a, chance_b in ((40, 0.1, 0.05), (400, 0.15, 0.1)):
        draws = generator.multinomial(count, [chance_a, chance_b, 1 - chance_a - chance_b], 3000)
        inside = 0
        for only_a, only_b, _ in draws:
            low, high = difference_interval(int(only_a), int(only_b), count)
            inside += low <= chance_a - chance_b <= high
        assert 0.935 <= inside / 3000 <= 0.985


@given(discordant=st.integers(0, 400), count=st.integers(400, 5000))
def test_the_smallest_difference_is_where_the_test_turns(discordant: int, count: int) -> None:
    found = smallest_difference(discordant, count)
    enough = max(6, discordant)
    margin = round(found * count)
    assert found == margin / count
    assert (enough + margin) % 2 == 0
    only_a = (enough + margin) // 2
    assert mcnemar(only_a, enough - only_a).p_value < ALPHA
    if margin >= 2:
        assert mcnemar(only_a - 1, enough - only_a + 1).p_value >= ALPHA
