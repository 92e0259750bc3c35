"""Two bundles on the same images: is the difference more than the luck of the draw?"""

from __future__ import annotations

import math
from dataclasses import dataclass

EXACT_BELOW = 25
"""Discordant images below which McNemar's test is the exact binomial one."""
ALPHA = 0.05
_Z = 1.959963984540054


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two proportions on the same images (McNemar 1947).

    Attributes:
        method: `exact binomial`, or `chi-squared with continuity correction` (Edwards 1948).
        statistic: chi-squared with 1 degree of freedom; None for the exact test.
        p_value: two-sided.
    """

    method: str
    statistic: float | None
    p_value: float


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """Test whether A and B are right equally often.

    Args:
        only_a: images that A alone has right.
        only_b: images that B alone has right.
    """
    total = only_a + only_b
    if total < EXACT_BELOW:
        tail = sum(math.comb(total, k) for k in range(min(only_a, only_b) + 1))
        return McNemar("exact binomial", None, min(1.0, 2 * tail / 2**total))
    statistic = max(0, abs(only_a - only_b) - 1) ** 2 / total
    # Of chi-squared with 1 degree of freedom the upper tail is that of a squared normal deviate.
    p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemar("chi-squared with continuity correction", statistic, p_value)


def difference_interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    """95 % interval of the paired difference of accuracies, A minus B.

    Bonett and Price 2012 (J. Educ. Behav. Stat. 37:479): Wald's interval after one image more in
    each discordant cell, which keeps its level in small samples too.

    Args:
        count: images in all, at least 1.

    Returns:
        bounds in [-1, 1].
    """
    a, b = (only_a + 1) / (count + 2), (only_b + 1) / (count + 2)
    half = _Z * math.sqrt((a + b - (a - b) ** 2) / (count + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def smallest_difference(discordant: int, count: int) -> float:
    """The smallest difference of accuracies that the test would call real on these images.

    With `discordant` images on which just one of the two is right, the test's p-value first falls
    below `ALPHA` at this difference. A truth of that size is found about half of the time.

    Args:
        discordant: images that exactly one of the two has right.
        count: images in all.

    Returns:
        a share in (0, 1]; with fewer than 6 discordant images that of 6, the least that can do.
    """
    enough = max(discordant, 6)
    for margin in range(enough % 2, enough + 1, 2):
        only_a = (enough + margin) // 2
        if mcnemar(only_a, enough - only_a).p_value < ALPHA:
            return min(1.0, margin / count)
    raise AssertionError("six images that all go one way have p = 0.03")
