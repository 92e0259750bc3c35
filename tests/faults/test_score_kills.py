"""20,000 images, a job killed at random two dozen times, three times over."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.score_kills import check, many_images, run_killed


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_20_000_images_killed_at_random(tmp_path: Path, seed: int) -> None:
    source = many_images(tmp_path, 20_000)
    draw = random.Random(seed)
    points: list[dict[str, Any]] = []
    for _ in range(8):
        points.append({"call": "replace", "at": draw.randint(1, 6)})
        points.append({"call": "fsync", "at": draw.randint(1, 12)})
        points.append({"call": "clock", "at": draw.randint(20, 3_000)})
    looks = run_killed(tmp_path, source, points, None)
    assert sum(look["killed"] for look in looks) >= 12
    check(tmp_path, source, 20_001, looks)
