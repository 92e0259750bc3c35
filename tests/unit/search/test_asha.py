"""ASHA's decisions on hand-made sequences (Li et al. 2018, algorithm 2, without promotions)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.search.asha import Asha, JudgedTrial, replay, rungs_of


@pytest.mark.parametrize(
    ("grace", "reduction", "epochs", "rungs"),
    [
        (4, 3, 27, (4, 12)),
        (3, 3, 27, (3, 9)),
        (3, 3, 28, (3, 9, 27)),
        (1, 2, 9, (1, 2, 4, 8)),
        (9, 3, 9, ()),
        (9, 3, 5, ()),
        # A logarithm in floating point would lose or add a rung here.
        (1, 3, 243, (1, 3, 9, 27, 81)),
        (1, 3, 244, (1, 3, 9, 27, 81, 243)),
        (1, 10, 1000, (1, 10, 100)),
        (1, 5, 125, (1, 5, 25)),
    ],
)
def test_rungs(grace: int, reduction: int, epochs: int, rungs: tuple[int, ...]) -> None:
    assert rungs_of(grace, reduction, epochs) == rungs


def stops(asha: Asha, values: list[float], epoch: int = 3) -> list[bool]:
    """Whether each of trials 0, 1, 2, ... is stopped, arriving in this order."""
    found = []
    for trial, value in enumerate(values):
        decision = asha.decide(trial, epoch, value)
        assert decision is not None
        found.append(decision.stop)
    return found


def test_the_first_goes_on_then_only_the_best_third() -> None:
    # With 1 or 2 there, one may go on; so with 3 to 5; two with 6.
    values = [0.5, 0.4, 0.6, 0.55, 0.3, 0.59, 0.7]
    assert stops(Asha((3,), 3), values) == [False, True, False, True, True, False, False]


def test_rank_and_count_are_told() -> None:
    asha = Asha((3,), 2)
    seen = []
    for trial, value in enumerate([0.5, 0.4, 0.6, 0.5]):
        decision = asha.decide(trial, 3, value)
        assert decision is not None
        seen.append((decision.rung, decision.rank, decision.count, decision.stop))
    assert seen == [(3, 1, 1, False), (3, 2, 2, True), (3, 1, 3, False), (3, 2, 4, False)]


def test_equal_values_share_a_rank_and_go_on_together() -> None:
    assert stops(Asha((3,), 3), [0.5, 0.5, 0.5, 0.5]) == [False] * 4


def test_an_exempt_trial_counts_but_is_never_stopped() -> None:
    asha = Asha((3,), 2, exempt=frozenset({1}))
    assert stops(asha, [0.5, 0.1, 0.45]) == [False, False, True]
    decision = asha.decide(3, 3, 0.48)
    assert decision is not None
    assert (decision.rank, decision.count, decision.stop) == (2, 4, False), "with it, two may go on"


def test_a_trial_is_judged_once_a_rung() -> None:
    asha = Asha((3, 9), 3)
    assert asha.decide(0, 3, 0.5) is not None
    assert asha.decide(0, 3, 0.1) is None
    second = asha.decide(1, 3, 0.4)
    assert second is not None
    assert (second.rank, second.count) == (2, 2), "a repeated report added nothing"
    assert asha.decide(0, 9, 0.6) is not None


def test_epochs_between_rungs_are_not_judged() -> None:
    asha = Asha((3, 9), 3)
    assert [asha.decide(0, epoch, 0.5) is not None for epoch in range(1, 11)] == [
        epoch in (3, 9) for epoch in range(1, 11)
    ]


def test_without_rungs_nothing_is_stopped() -> None:
    assert Asha((), 3).decide(0, 3, 0.1) is None


@given(
    values=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    reduction=st.integers(2, 5),
)
def test_a_trial_goes_on_exactly_when_it_is_among_the_best_share(
    values: list[int], reduction: int
) -> None:
    asha = Asha((3,), reduction)
    for trial, value in enumerate(values):
        decision = asha.decide(trial, 3, float(value))
        so_far = sorted(values[: trial + 1], reverse=True)
        cut = so_far[max(1, len(so_far) // reduction) - 1]
        assert decision is not None
        assert decision.stop == (value < cut)


@given(st.integers(0, 1000))
def test_rungs_do_not_touch_each_other(seed: int) -> None:
    generator = random.Random(seed)
    events = [(trial, rung) for trial in range(6) for rung in (3, 9)]
    generator.shuffle(events)
    values = {event: generator.random() for event in events}
    together, alone = Asha((3, 9), 3), {3: Asha((3,), 3), 9: Asha((9,), 3)}
    for trial, rung in events:
        found = together.decide(trial, rung, values[trial, rung])
        assert found == alone[rung].decide(trial, rung, values[trial, rung])


def judged(seed: int, num_trials: int = 12) -> list[JudgedTrial]:
    """A search of three rungs, recorded as it happened."""
    generator = random.Random(seed)
    asha = Asha((1, 2, 4), 2, exempt={0})
    curves: dict[int, list[dict[str, object]]] = {n: [] for n in range(num_trials)}
    visits: dict[int, list[dict[str, object]]] = {n: [] for n in range(num_trials)}
    running = list(range(num_trials))
    while running:
        number = generator.choice(running)
        epoch = len(curves[number]) + 1
        best = max([generator.random(), *(row["best_objective"] for row in curves[number])])  # type: ignore[type-var]
        curves[number].append({"epoch": epoch, "best_objective": best, "diverged": False})
        decision = asha.decide(number, epoch, best)  # type: ignore[arg-type]
        if decision is not None:
            visits[number].append(vars(decision))
        if epoch == 5 or (decision is not None and decision.stop):
            running.remove(number)
    return [JudgedTrial(n, curves[n], visits[n]) for n in range(num_trials)]


@given(st.integers(0, 200))
def test_a_replay_agrees_with_every_decision(seed: int) -> None:
    trials = judged(seed)
    compared, faults = replay(trials, (1, 2, 4), 2, {0}, sign=1.0)
    assert compared == sum(len(trial.rungs) for trial in trials)
    assert not faults


def test_a_replay_finds_what_the_curves_do_not_give() -> None:
    trials = judged(3)
    visit = dict(trials[5].rungs[0])
    changed = JudgedTrial(5, trials[5].curve, [{**visit, "stop": not visit["stop"]}])
    _, faults = replay([*trials[:5], changed, *trials[6:]], (1, 2, 4), 2, {0}, sign=1.0)
    assert faults
    unjudged = JudgedTrial(5, trials[5].curve, [])
    _, faults = replay([*trials[:5], unjudged, *trials[6:]], (1, 2, 4), 2, {0}, sign=1.0)
    assert any("without being judged" in fault for fault in faults)
