"""SIGKILL at any moment: what is left is whole, and resumed it is complete, each input once."""

from __future__ import annotations

from pathlib import Path

from tests.score_kills import check, many_images, run_killed


def test_killed_at_every_kind_of_step(tmp_path: Path) -> None:
    """Short: 3,000 images in 7 shards, killed at 14 renames, flushes and moments in one go."""
    source = many_images(tmp_path, 3_000)
    points = [{"call": "replace", "at": number} for number in (1, 2, 3, 2, 3, 1)]
    points += [{"call": "fsync", "at": number} for number in (1, 3, 5, 2, 4)]
    points += [{"call": "clock", "at": number} for number in (60, 150, 400)]
    looks = run_killed(tmp_path, source, points, 450)
    assert sum(look["killed"] for look in looks) >= 12
    check(tmp_path, source, 3_001, looks)
