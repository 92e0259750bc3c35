"""The epochs of several workers reach the caller as they end."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest

from fer_ray.training.distributed import _passing
from fer_ray.training.epoch_result import EpochResult

pytestmark = pytest.mark.usefixtures("ray_session")


def epoch(number: int) -> EpochResult:
    values: dict[str, Any] = {field.name: number for field in fields(EpochResult)}
    return EpochResult(**values)


def test_all_were_told_in_order_at_the_end() -> None:
    told: list[EpochResult] = []
    with _passing(told.append) as queue:
        for number in (1, 2, 3):
            queue.put(asdict(epoch(number)))
    assert told == [epoch(1), epoch(2), epoch(3)]


def test_a_caller_that_fails_is_heard() -> None:
    def fail(result: EpochResult) -> None:
        raise ValueError(f"epoch {result.epoch} is not wanted")

    with pytest.raises(ValueError, match="epoch 1 is not wanted"), _passing(fail) as queue:
        queue.put(asdict(epoch(1)))
