"""Which trial takes over a process, and how many are handed out, without a cluster."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from fer_ray.search.ray_adapters import StudyBridge, StudyScheduler

SLOTS, AHEAD = 4, 2


class Controller:
    """As far as the scheduler looks at Tune's."""

    def __init__(self) -> None:
        self.trials: list[Any] = []

    def add(self, number: int, status: str = Trial.PENDING) -> None:
        self.trials.insert(0, SimpleNamespace(config={"number": number}, status=status))

    def get_live_trials(self) -> list[Any]:
        return self.trials


@pytest.fixture
def bridge() -> StudyBridge:
    quiet = SimpleNamespace(flush_if_due=lambda: None)
    study: Any = SimpleNamespace(run=SimpleNamespace(stop_request=None), file=quiet)
    study.prepare = lambda: None
    bridge = StudyBridge(study, lambda trial: None, num_slots=SLOTS, ahead=AHEAD)
    bridge.stop = SimpleNamespace(is_asked=False)  # type: ignore[assignment]
    return bridge


def hand_out(bridge: StudyBridge) -> int:
    """Ask as Tune does, until there are enough; gives how many were handed out."""
    number = 0
    while not bridge.is_asked_enough:
        bridge.handed_out.add(number)
        number += 1
    return number


def test_every_slot_and_a_few_trials_ahead_are_handed_out(bridge: StudyBridge) -> None:
    assert hand_out(bridge) == SLOTS + AHEAD
    bridge.running.update(range(SLOTS))
    assert bridge.is_asked_enough, "all slots train, and the two ahead wait"


def test_a_cluster_that_grows_is_given_more(bridge: StudyBridge) -> None:
    hand_out(bridge)
    bridge.running.update(range(SLOTS + 1))  # a node has come
    assert not bridge.is_asked_enough


def test_no_more_than_the_users_limit_is_handed_out(bridge: StudyBridge) -> None:
    bridge.max_concurrent = 3
    assert hand_out(bridge) == 3


def test_a_free_process_is_not_given_to_a_trial_whose_own_is_starting(bridge: StudyBridge) -> None:
    controller = Controller()
    for number in range(SLOTS + AHEAD):
        bridge.handed_out.add(number)
        controller.add(number)
    scheduler = StudyScheduler(bridge)
    controller.trials = [t for t in controller.trials if t.config["number"] != 0]
    controller.add(0, Trial.RUNNING)
    bridge.running.add(0)
    assert scheduler.choose_trial_to_run(controller) is None, "no process is free"
    bridge.end(0)
    controller.trials.pop(0)
    chosen = scheduler.choose_trial_to_run(controller)
    assert chosen is not None
    assert chosen.config["number"] == 4, "1, 2 and 3 have processes on their way"
    assert scheduler.choose_trial_to_run(controller) is None, "it is taken"


def test_with_all_slots_training_the_oldest_waiting_trial_comes_next(bridge: StudyBridge) -> None:
    controller = Controller()
    for number in range(SLOTS + AHEAD):
        bridge.handed_out.add(number)
        controller.add(number, Trial.RUNNING if number < SLOTS else Trial.PENDING)
    bridge.running.update(range(SLOTS))
    bridge.end(2)
    controller.trials = [t for t in controller.trials if t.config["number"] != 2]
    chosen = StudyScheduler(bridge).choose_trial_to_run(controller)
    assert chosen is not None
    assert chosen.config["number"] == SLOTS


def test_without_a_trial_beyond_those_that_start_the_choice_is_tunes(bridge: StudyBridge) -> None:
    controller = Controller()
    for number in range(3):
        bridge.handed_out.add(number)
        controller.add(number)
    bridge.running.add(0)
    bridge.end(0)
    controller.trials.pop()
    assert StudyScheduler(bridge).choose_trial_to_run(controller) is None
