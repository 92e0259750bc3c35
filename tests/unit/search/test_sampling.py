"""What a sampler sees of a long search."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from fer_ray.search.sampling import BoundedStudy

FINISHED = 460
RUNNING = 5


def value_of(number: int) -> float:
    """All different, in no order."""
    return (number * 173 % FINISHED) / FINISHED


def study_of(num_finished: int, direction: str = "MAXIMIZE") -> BoundedStudy:
    """Every third trial was pruned at epoch 1; a few are running."""
    storage = InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection[direction]], "long")
    for number in range(num_finished + RUNNING):
        state = TrialState.PRUNED if number % 3 == 0 else TrialState.COMPLETE
        is_running = number >= num_finished
        trial = create_trial(
            state=TrialState.RUNNING if is_running else state,
            params={"x": value_of(number % FINISHED)},
            distributions={"x": FloatDistribution(0, 1)},
            value=value_of(number) if state == TrialState.COMPLETE and not is_running else None,
            intermediate_values={1: value_of(number % FINISHED)},
        )
        storage.create_new_trial(study_id, template_trial=trial)
    return BoundedStudy("long", storage)


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state.is_finished()]


def test_of_a_short_search_the_sampler_sees_everything() -> None:
    assert len(study_of(400).get_trials(deepcopy=False)) == 400 + RUNNING


@pytest.mark.parametrize("direction", ["MAXIMIZE", "MINIMIZE"])
def test_of_a_long_search_it_sees_the_best_all_that_run_and_an_even_choice(direction: str) -> None:
    study = study_of(FINISHED, direction)
    shown = study.get_trials(deepcopy=False)
    assert len(finished(shown)) == 400
    assert len(shown) == 400 + RUNNING
    numbers = [trial.number for trial in shown]
    assert numbers == sorted(numbers)
    complete = [number for number in range(FINISHED) if number % 3]
    best = sorted(complete, key=value_of, reverse=direction == "MAXIMIZE")[:100]
    assert set(best) <= set(numbers)
    others = [number for number in numbers if number < FINISHED and number not in best]
    for start in range(0, FINISHED, 92):
        assert 30 < sum(start <= number < start + 92 for number in others) < 90


def test_rejected_trials_take_nobodys_place() -> None:
    study = study_of(400)
    for _ in range(300):
        study.add_trial(create_trial(state=TrialState.FAIL))
    study.look()
    shown = study.get_trials(deepcopy=False)
    assert len(shown) == 400 + RUNNING
    assert all(trial.state != TrialState.FAIL for trial in shown)


def test_what_is_shown_follows_from_the_trials_alone() -> None:
    one, other = (study_of(FINISHED).get_trials(deepcopy=False) for _ in range(2))
    assert [trial.number for trial in one] == [trial.number for trial in other]


def test_pruned_trials_that_came_further_are_better() -> None:
    study = study_of(FINISHED)
    late = create_trial(state=TrialState.PRUNED, intermediate_values={2: 0.01})
    for _ in range(60):
        study.add_trial(late)
    study.look()
    shown = [trial.number for trial in study.get_trials(deepcopy=False)]
    assert len(finished(study.get_trials(deepcopy=False))) == 400
    # 307 complete trials alone are more than the best hundred: the late ones count among the rest.
    first = FINISHED + RUNNING
    assert 20 < sum(number >= first for number in shown) < 60


def test_tpe_still_learns_from_what_it_is_shown() -> None:
    study = study_of(FINISHED)
    study.sampler = optuna.samplers.TPESampler(multivariate=True, seed=0)
    asked = [study.ask({"x": FloatDistribution(0, 1)}).params["x"] for _ in range(20)]
    assert sum(value > 0.8 for value in asked) > 14, "the best have x near 1"
