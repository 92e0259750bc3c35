"""Learning-rate schedules at their start, in warm-up, in the middle and at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.config.sections.train import ScheduleConfig
from fer_ray.training.schedule import (
    Plateau,
    Schedule,
    constant,
    cosine,
    exponential,
    onecycle,
    step,
)


def test_constant() -> None:
    assert [constant()(progress) for progress in (0.0, 3.5, 99.0)] == [1.0, 1.0, 1.0]


def test_cosine_warms_up_linearly_then_falls_to_zero() -> None:
    factor = cosine(epochs=10, warmup_epochs=2)
    assert [factor(p) for p in (0.0, 0.5, 1.0)] == [0.0, 0.25, 0.5]
    assert factor(2.0) == 1.0
    assert factor(6.0) == pytest.approx(0.5)
    assert factor(10.0) == pytest.approx(0.0, abs=1e-12)
    assert factor(11.0) == pytest.approx(0.0, abs=1e-12)


def test_cosine_without_warm_up_starts_at_the_top() -> None:
    assert cosine(epochs=4, warmup_epochs=0)(0.0) == 1.0


def test_step_drops_at_each_multiple() -> None:
    factor = step(step_epochs=3, gamma=0.1)
    assert [factor(p) for p in (0.0, 2.99, 3.0, 5.9)] == pytest.approx([1, 1, 0.1, 0.1])
    assert factor(6.0) == pytest.approx(0.01)


def test_exponential_drops_each_epoch() -> None:
    factor = exponential(0.5)
    assert [factor(p) for p in (0.0, 0.9, 1.0, 2.5)] == [1.0, 1.0, 0.5, 0.25]


def test_onecycle_rises_and_falls_linearly() -> None:
    factor = onecycle(epochs=8, warmup_frac=0.25)
    assert [factor(p) for p in (0.0, 1.0, 2.0, 5.0, 8.0, 9.0)] == [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]


def test_plateau_shrinks_after_so_many_epochs_without_gain() -> None:
    schedule = Plateau(factor=0.5, patience=2)
    seen = []
    for gain in (0.1, 0.2, 0.2, 0.1, 0.3, 0.1, 0.1, 0.1, 0.1):
        schedule.observe(gain)
        seen.append(schedule.factor(0.0))
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3]), max_size=12), st.integers(0, 12))
def test_plateau_goes_on_from_its_state(gains: list[float], cut: int) -> None:
    config = ScheduleConfig.model_validate({"plateau": {"factor": 0.5, "patience": 2}})
    whole, first, second = (Schedule(config, 10) for _ in range(3))
    for gain in gains:
        whole.observe(gain)
    for gain in gains[:cut]:
        first.observe(gain)
    second.load(first.state())
    for gain in gains[cut:]:
        second.observe(gain)
    assert second.factor(0.0) == whole.factor(0.0)
    assert second.state() == whole.state()


@pytest.mark.parametrize(
    ("tree", "values"),
    [
        ({"cosine": {"warmup_epochs": 0}}, [1.0, 0.5, 0.0]),
        ({"step": {"step_epochs": 2, "gamma": 0.1}}, [1.0, 0.1, 0.01]),
        ({"exponential": {"gamma": 0.5}}, [1.0, 0.25, 0.0625]),
        ({"onecycle": {"warmup_frac": 0.5}}, [0.0, 1.0, 0.0]),
        ({"plateau": {}}, [1.0, 1.0, 1.0]),
        ({"constant": {}}, [1.0, 1.0, 1.0]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_schedule_of_a_config(tree: dict[str, dict[str, float]], values: list[float]) -> None:
    schedule = Schedule(ScheduleConfig.model_validate(tree), epochs=4)
    assert [schedule.factor(p) for p in (0.0, 2.0, 4.0)] == pytest.approx(values, abs=1e-12)
