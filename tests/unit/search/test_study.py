"""The study on a real SQLite file: what it asks, and what it tells Optuna."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from fer_ray.config import space as space_module
from fer_ray.config.holes import Hole
from fer_ray.config.space import load_config, parse_space
from fer_ray.errors import FerRayError
from fer_ray.models.build import size_of
from fer_ray.runs import RunDirectory
from fer_ray.search import asking, sampling
from fer_ray.search.live import Asked
from fer_ray.search.results import write_trials
from fer_ray.search.sampling import decode, encode, encoded_choices
from fer_ray.search.study import Study

SPACE = """\
version: 1
name: search
model:
  one_of:
    cnn:
      depth: {int: [2, 4]}
      width: {choice: [8, 16]}
      head: {choice: [[], [32]]}
      head_dropout: {float: [0.0, 0.5], step: 0.1}
    resnet:
      weights: none
      head_dropout: {float: [0.0, 0.5]}
train:
  epochs: 9
  batch_size: {choice: [64, 32]}
  optimizer:
    one_of:
      sgd: {lr: {log: [1.0e-3, 1.0e-1]}}
      adamw: {lr: {log: [1.0e-4, 1.0e-2]}}
  schedule:
    one_of:
      cosine: {warmup_epochs: {int: [0, 2]}}
      constant: {}
"""
TAIL = """\
search: {sampler: tpe, trials: 60, seed: 7}
scheduler: {asha: {grace_epochs: 1, reduction: 2}}
"""


MakeStudy = Callable[..., Study]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's empty tables: half a second that each test would spend again."""
    path = tmp_path_factory.mktemp("tables") / "study.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture
def make(tmp_path: Path, tables: Path) -> MakeStudy:
    def build(text: str = SPACE + TAIL, *overrides: str, name: str = "run") -> Study:
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        shutil.copy(tables, run.study_db)
        return Study(run, parse_space(text, "a.yaml", overrides))

    return build


def test_a_study_makes_its_file(tmp_path: Path) -> None:
    study = Study(RunDirectory(tmp_path), parse_space(SPACE + TAIL, "a.yaml"))
    assert study.run.study_db == tmp_path / "study.db"
    assert begin(study).number == 0
    assert study.num_trials == 60
    assert frozen(study, 0).state == TrialState.RUNNING


def begin(study: Study) -> Asked:
    """Ask for a trial and start it."""
    asked = study.ask()
    study.begin(asked.number)
    return asked


def row(epoch: int, objective: float, best: float | None = None, **more: Any) -> dict[str, Any]:
    values = {
        "epoch": epoch,
        "objective": objective,
        "best_objective": objective if best is None else best,
        "best_epoch": epoch,
        "diverged": False,
    }
    return {**values, **more}


def frozen(study: Study, number: int) -> FrozenTrial:
    """What another process reads from the file."""
    stored = optuna.load_study(
        study_name="search", storage=f"sqlite:///{study.run.study_db}"
    ).get_trials()
    return stored[number]


def rejected_by(study: Study) -> list[FrozenTrial]:
    """What was asked for and turned away."""
    return [t for t in study.asker.frozen_trials if t.user_attrs.get("rejected")]


# --- asking ---------------------------------------------------------------------------------------


def test_trial_0_is_the_defaults(make: MakeStudy) -> None:
    study = make()
    asked = begin(study)
    assert asked.number == 0
    assert asked.params == study.space.complete({})
    base = study.space.base
    assert asked.config.model == base.model
    assert asked.config.train.optimizer == base.train.optimizer
    assert frozen(study, 0).params["train.optimizer"] == "sgd"


def test_samples_validate_and_every_branch_and_choice_occurs(make: MakeStudy) -> None:
    study = make(SPACE + TAIL, "search.sampler=random")
    seen: dict[str, set[Any]] = {}
    for _ in range(60):
        asked = begin(study)
        assert study.space.check_point(asked.params) == asked.params
        for hole in study.space.holes:
            reached = all(asked.params.get(a) == branch for a, branch in hole.when)
            assert (hole.address in asked.params) == reached
        for address, value in asked.params.items():
            seen.setdefault(address, set()).add(value)
        assert study.space.resolve(asked.params).model == asked.config.model
    for hole in study.space.holes:
        if hole.choices:
            assert seen[hole.address] == set(hole.choices), hole.address
        else:
            assert len(seen[hole.address]) > 2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_tpe_learns_where_it_is_good(make: MakeStudy, sampler: str) -> None:
    study = make(
        "version: 1\nname: search\nmodel: {cnn: {head_dropout: {float: [0.0, 0.9]}}}\n"
        f"search: {{sampler: {sampler}, seed: 7}}\nscheduler: none\n"
    )
    distances = []
    for _ in range(30):
        asked = begin(study)
        distances.append(abs(asked.params["model.cnn.head_dropout"] - 0.7))
        study.record(asked.number, [row(1, 1 - distances[-1])])
        study.finish(asked.number, "complete")
    learned = sum(distances[-20:]) / 20 < 0.18  # 0.3 by chance
    assert learned == (sampler == "tpe")


def test_each_trial_has_a_seed_of_its_own_and_a_file_that_repeats_it(
    make: MakeStudy, tmp_path: Path
) -> None:
    study = make()
    asked = [begin(study) for _ in range(5)]
    seeds = {trial.config.train.seed for trial in asked}
    assert len(seeds) == 5
    for trial in asked:
        assert frozen(study, trial.number).user_attrs["seed"] == trial.config.train.seed
        path = study.run.trial(trial.number) / "resolved.yaml"
        assert load_config(path).fingerprint() == trial.config.fingerprint()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_search_seed_asks_the_same(make: MakeStudy, sampler: str) -> None:
    asked = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        study = make(SPACE + TAIL, f"search.sampler={sampler}", f"search.seed={seed}", name=name)
        trials = [begin(study) for _ in range(4)]
        asked.append([(t.number, t.params, t.config.train.seed) for t in trials])
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_start_from_comes_right_after_the_defaults(make: MakeStudy) -> None:
    text = (
        SPACE
        + """\
search:
  start_from:
    - {model: resnet, train.batch_size: 32}
    - {model.cnn.head: [32], train.optimizer: adamw, train.optimizer.adamw.lr: 0.005}
"""
    )
    study = make(text)
    asked = [begin(study) for _ in range(3)]
    assert asked[0].params == study.space.complete({})
    assert asked[1].params["model"] == "resnet"
    assert asked[1].params["train.batch_size"] == 32
    assert asked[2].params["model.cnn.head"] == (32,)
    assert asked[2].params["train.optimizer.adamw.lr"] == 0.005
    assert asked[2].config.model.cnn is not None
    assert asked[2].config.model.cnn.head == (32,)


GRID = """\
version: 1
name: search
model: {cnn: {depth: {int: [2, 3]}, head: {choice: [[], [16]]}}}
train: {batch_size: {choice: [64, 32]}}
search: {sampler: grid, trials: 40}
"""


def test_a_grid_asks_every_point_once(make: MakeStudy) -> None:
    study = make(GRID)
    assert study.num_trials == 8
    asked = [begin(study).params for _ in range(8)]
    assert asked[0] == study.space.complete({})
    key = [tuple(sorted(params.items())) for params in asked]
    assert set(key) == {tuple(sorted(params.items())) for params in study.space.grid()}
    assert len(set(key)) == 8


def test_a_grid_asks_no_more_than_its_trials(make: MakeStudy) -> None:
    assert make(GRID, "search.trials=3").num_trials == 3


def test_forbidden_points_of_a_grid_are_no_trials(make: MakeStudy) -> None:
    forbid = "forbid: [{model.cnn.depth: 3, train.batch_size: 32}]\n"
    study = make(GRID + forbid)
    asked = []
    while study.wants_more:
        asked.append(begin(study))
    assert study.num_trials == len(asked) == 6
    assert not rejected_by(study)
    assert all(not study.space.is_forbidden(one.params) for one in asked)


# --- forbid and limits ----------------------------------------------------------------------------


def test_forbidden_combinations_are_never_asked_and_told_as_infeasible(make: MakeStudy) -> None:
    text = SPACE + TAIL + "forbid: [{model: cnn, train.optimizer: adamw}, {model: resnet}]\n"
    study = make(text, "search.sampler=random")
    for _ in range(6):
        params = begin(study).params
        assert params["model"] == "cnn"
        assert params["train.optimizer"] == "sgd"
    rejected = rejected_by(study)
    assert len(rejected) > 2
    assert {t.number for t in rejected}.isdisjoint(study.trials)
    for trial in rejected:
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["ended"] == "forbidden"
        assert frozen(study, trial.number).constraints == {"allowed": 1.0}
    assert len(study.trials) == 6


@pytest.mark.parametrize("what", ["params", "macs"])
def test_configurations_above_the_limits_are_never_asked(make: MakeStudy, what: str) -> None:
    plain = make(name="plain")
    position = 0 if what == "params" else 1
    limit = size_of(plain.space.base)[position]
    study = make(SPACE + TAIL, "search.sampler=random", f"limits.{what}={limit}")
    for _ in range(3):
        assert size_of(begin(study).config)[position] <= limit
    (why,) = {t.user_attrs["ended"].rsplit(", ", 1)[1] for t in rejected_by(study)}
    assert why == f"the limit is {limit:,}"


def test_a_space_without_an_allowed_point_ends_with_a_remedy(
    make: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_MAX_REJECTED", 4)
    study = make(SPACE + TAIL, "search.sampler=random", "limits.params=10")
    with pytest.raises(FerRayError, match="Widen `limits` or `forbid`"):
        begin(study)
    assert len(rejected_by(study)) == 4


# --- telling --------------------------------------------------------------------------------------


def test_a_complete_trial_has_its_best_value_and_its_whole_curve(make: MakeStudy) -> None:
    study = make()
    begin(study)
    curve = [row(1, 0.3), row(2, 0.6), row(3, 0.5, best=0.6, best_epoch=2)]
    assert not study.record(0, curve[:1])
    assert not study.record(0, curve[1:])
    study.finish(0, "complete", bundle_id="abc")
    trial = frozen(study, 0)
    assert trial.state == TrialState.COMPLETE
    assert trial.value == 0.6, "the best epoch's, not the last one's"
    assert trial.user_attrs["curve"] == curve
    assert trial.user_attrs["ended"] == "complete"
    assert trial.user_attrs["bundle_id"] == "abc"
    assert trial.intermediate_values == {1: 0.3, 2: 0.6, 3: 0.6}


def test_a_stopped_trial_is_pruned_with_its_best_value(make: MakeStudy) -> None:
    study = make()
    for _ in range(3):
        begin(study)
    assert not study.record(0, [row(1, 0.1)]), "trial 0 is exempt"
    assert not study.record(1, [row(1, 0.5)])
    assert study.record(2, [row(1, 0.3)])
    study.finish(2, "pruned")
    trial = frozen(study, 2)
    assert trial.state == TrialState.PRUNED
    assert trial.value == 0.3
    (visit,) = trial.user_attrs["rungs"]
    assert visit.pop("time") > 0
    assert visit == {
        "rung": 1,
        "rank": 2,
        "count": 3,
        "stop": True,
        "value": 0.3,
        "threshold": 0.5,
    }
    assert trial.user_attrs["curve"] == [row(1, 0.3)]


def test_trial_0_is_never_stopped_but_counts(make: MakeStudy) -> None:
    study = make()
    for _ in range(4):
        begin(study)
    assert not study.record(1, [row(1, 0.9)])
    assert not study.record(0, [row(1, 0.1), row(2, 0.1), row(3, 0.1), row(4, 0.1)])
    assert study.trials[0].decisions[0][0].rank == 2
    assert study.record(2, [row(1, 0.5)])


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        ("complete", TrialState.COMPLETE),
        ("early stop", TrialState.COMPLETE),
        ("pruned", TrialState.PRUNED),
        ("diverged", TrialState.PRUNED),
        ("time budget", TrialState.PRUNED),
        ("interrupted", TrialState.PRUNED),
        ("failed", TrialState.FAIL),
    ],
)
def test_how_a_trial_ended_is_told_right(make: MakeStudy, ended: str, state: TrialState) -> None:
    study = make()
    begin(study)
    study.record(0, [row(1, 0.4)])
    study.finish(0, ended, error="ValueError: x" if ended == "failed" else None)
    trial = frozen(study, 0)
    assert trial.state == state
    assert trial.user_attrs["ended"] == ended
    assert trial.user_attrs["curve"] == [row(1, 0.4)], "whatever happened, the curve stays"
    if state != TrialState.FAIL:
        assert trial.value == 0.4
    else:
        assert trial.user_attrs["error"] == "ValueError: x"


@pytest.mark.parametrize("ended", ["failed", "interrupted", "time budget"])
def test_a_trial_without_an_epoch_fails(make: MakeStudy, ended: str) -> None:
    study = make()
    begin(study)
    study.finish(0, ended)
    assert frozen(study, 0).state == TrialState.FAIL
    assert study.ranking() == []


def test_a_diverged_trial_keeps_its_last_finite_value(make: MakeStudy) -> None:
    study = make()
    begin(study)
    bad = row(3, -1.0, best=0.5, diverged=True)
    study.record(0, [row(1, 0.5), row(2, 0.4, best=0.5), bad])
    study.finish(0, "diverged")
    trial = frozen(study, 0)
    assert (trial.state, trial.value) == (TrialState.PRUNED, 0.5)
    assert 3 not in trial.intermediate_values
    assert trial.user_attrs["curve"][-1]["diverged"]


def test_a_trial_that_diverged_at_once_has_no_value(make: MakeStudy) -> None:
    study = make()
    begin(study)
    study.record(0, [row(1, -1.0, diverged=True)])
    study.finish(0, "diverged")
    assert frozen(study, 0).state == TrialState.FAIL
    assert study.ranking() == []


def test_finishing_twice_changes_nothing(make: MakeStudy) -> None:
    study = make()
    begin(study)
    study.record(0, [row(1, 0.4)])
    study.finish(0, "complete", bundle_id="abc")
    before = frozen(study, 0)
    study.finish(0, "failed", error="too late")
    assert frozen(study, 0) == before
    assert study.trials[0].ended == "complete"


def test_epochs_that_a_retried_trial_repeats_are_counted_once(make: MakeStudy) -> None:
    study = make()
    begin(study)
    study.record(0, [row(1, 0.3), row(2, 0.4)])
    study.record(0, [row(2, 0.9), row(3, 0.5)])
    assert [entry["epoch"] for entry in study.trials[0].curve] == [1, 2, 3]
    assert study.trials[0].curve[1]["objective"] == 0.4


def test_a_minimised_objective_turns_everything_round(make: MakeStudy) -> None:
    study = make(SPACE + TAIL, "objective={metric: val/log_loss, goal: minimize}")
    for _ in range(4):
        begin(study)
    study.record(0, [row(1, 1.5)])
    assert not study.record(1, [row(1, 1.0)])
    assert study.record(2, [row(1, 2.0)])
    assert not study.record(3, [row(1, 0.8), row(2, 0.7)])
    for number in range(4):
        study.finish(number, "complete")
    assert [live.number for live in study.ranking()] == [3, 1, 0, 2]
    assert frozen(study, 3).value == 0.7


def test_ranking_is_by_best_value_ties_to_the_earlier(make: MakeStudy) -> None:
    study = make()
    for number, value in enumerate([0.4, 0.6, 0.6, 0.5]):
        begin(study)
        study.record(number, [row(1, value)])
    assert [live.number for live in study.ranking()] == [1, 2, 3, 0]


def test_without_a_scheduler_nothing_is_stopped(make: MakeStudy) -> None:
    study = make(SPACE + TAIL, "scheduler=none")
    for number, value in enumerate([0.9, 0.1, 0.1]):
        begin(study)
        rows = [row(epoch, value) for epoch in range(1, 10)]
        assert not study.record(number, rows)


# --- choices that Optuna takes for equal ----------------------------------------------------------


def test_choices_that_are_equal_to_python_stay_apart(make: MakeStudy) -> None:
    text = "version: 1\nname: search\nmodel: {cnn: {batchnorm: {choice: [all, none, [1]]}}}\n"
    mixed = text + "augment: {rotate_deg: {choice: [0, 0.0, 10]}}\nsearch: {sampler: random}\n"
    study = make(mixed)
    seen = {repr(begin(study).params["augment.rotate_deg"]) for _ in range(30)}
    assert seen == {"0", "0.0", "10"}
    reopened = Study(study.run, study.space)
    for number, live in study.trials.items():
        assert repr(reopened.trials[number].asked.params) == repr(live.asked.params)


@pytest.mark.parametrize("choices", [(False, 0), (True, 1.0), (1, 1.0, "1"), ((1,), "[1]")])
def test_encoding_gives_back_the_very_value(choices: tuple[Any, ...]) -> None:
    hole = Hole("model.cnn.x", "choice", choices[0], choices=choices)
    for choice in choices:
        back = decode(hole, encode(hole, choice))
        assert (back, type(back)) == (choice, type(choice))
    assert len(set(map(repr, encoded_choices(hole)))) == len(choices)


# --- grids and repeats ----------------------------------------------------------------------------


def test_a_grid_does_not_count_forbidden_points(make: MakeStudy) -> None:
    text = GRID + "forbid: [{model.cnn.depth: 3, train.batch_size: 32}]\n"
    study = make(text)
    assert study.num_trials == 6
    asked = [begin(study).params for _ in range(6)]
    assert not any(study.space.is_forbidden(params) for params in asked)
    assert len({tuple(sorted(params.items())) for params in asked}) == 6
    assert not study.wants_more
    assert not rejected_by(study)


def test_repeats_train_a_configuration_on_several_seeds(make: MakeStudy) -> None:
    study = make(GRID, "search.repeat=2", "search.trials=3")
    assert study.num_trials == 6
    asked = [begin(study) for _ in range(6)]
    assert [a.repeat_of for a in asked] == [None, 0, None, 2, None, 4]
    for first, second in zip(asked[::2], asked[1::2], strict=True):
        assert first.params == second.params
        assert first.config.train.seed != second.config.train.seed
    for number, value in enumerate([0.5, 0.5, 0.9, 0.2, 0.6, 0.6]):
        study.record(number, [row(1, value)])
    assert [live.number for live in study.ranking()] == [4, 5, 2, 3, 0, 1], "by mean, not by luck"


# --- a file that another driver left --------------------------------------------------------------


def reopened(study: Study) -> Study:
    """What a new process makes of the file; the old one is left as a kill leaves it."""
    study.file.flush()
    return Study(study.run, study.space)


def test_a_reopened_study_hands_out_what_was_under_way_and_asks_on(make: MakeStudy) -> None:
    text = SPACE + TAIL + "forbid: [{model: resnet}]\n"
    whole = make(text, "search.sampler=random", name="whole")
    expected = [begin(whole).params for _ in range(8)]
    study = make(text, "search.sampler=random", name="killed")
    begun = [begin(study).number for _ in range(5)]
    study.record(begun[1], [row(1, 0.5)])
    study.finish(begun[1], "complete")
    study.record(begun[2], [row(1, 0.6), row(2, 0.7)])
    study.prepare()  # asked ahead, not begun: as if never asked
    second = reopened(study)
    left = [begun[0], *begun[2:]]
    assert [live.number for live in second.unfinished] == left
    assert second.trials[begun[2]].curve == [row(1, 0.6), row(2, 0.7)]
    again = [begin(second) for _ in range(4)]
    assert [(a.number, a.params, a.config) for a in again] == [
        (n, study.trials[n].asked.params, study.trials[n].asked.config) for n in left
    ]
    more = [begin(second).params for _ in range(3)]
    assert [live.asked.params for live in second.trials.values()] == expected
    assert more == expected[5:]


@pytest.mark.parametrize(("sampler", "shown"), [("tpe", 400), ("tpe", 6), ("random", 400)], ids=str)
def test_an_interruption_changes_nothing_of_what_is_asked(
    make: MakeStudy, monkeypatch: pytest.MonkeyPatch, sampler: str, shown: int
) -> None:
    monkeypatch.setattr(sampling, "_MAX_SHOWN", shown)
    monkeypatch.setattr(sampling, "_MAX_SHOWN_BEST", shown // 2)
    studies = [make(SPACE + TAIL, f"search.sampler={sampler}", name=name) for name in ("a", "b")]
    for number in range(16):
        if number == 13:
            studies[1] = reopened(studies[1])
        asked = [begin(study) for study in studies]
        assert asked[0].params == asked[1].params, number
        assert asked[0].config == asked[1].config
        for study in studies:
            study.record(number, [row(1, (number * 7 % 11) / 11)])
            study.finish(number, "complete")


def test_trials_that_begin_in_another_order_are_noted_as_those_in_order(make: MakeStudy) -> None:
    study = make()
    first, second = study.ask(), study.ask()
    study.begin(second.number)
    assert frozen(study, 0).state == TrialState.RUNNING, "numbers are given in order"
    study.begin(first.number)
    for number in (0, 1):
        noted = frozen(study, number).user_attrs
        assert noted["asked"] <= noted["started"] == noted["attempts"][0]["started"]
    write_trials(study)
    assert list(pd.read_parquet(study.run.path / "trials.parquet")["number"]) == [0, 1]


def test_rungs_come_back_from_the_curves(make: MakeStudy) -> None:
    study = make()
    for number, value in enumerate([0.5, 0.6, 0.7, 0.4]):
        begin(study)
        study.record(number, [row(1, value)])
    study.finish(3, "pruned")
    second = reopened(study)
    ahead = [begin(second).number for _ in range(3)]
    assert ahead == [0, 1, 2]
    assert not second.record(1, [row(1, 0.6), row(2, 0.6)])
    begin(second)
    assert second.record(4, [row(1, 0.55)]), "third of five; two go on"
    decision, _ = second.trials[4].decisions[0]
    assert (decision.rank, decision.count, decision.threshold) == (3, 5, 0.6)


def test_a_trial_is_one_transaction_from_beginning_to_run(make: MakeStudy) -> None:
    study = make()
    commits = []
    event.listen(study.file._storage.engine, "commit", lambda _: commits.append(1))
    asked = begin(study)
    assert len(commits) <= 4, "the trial, and its first attempt; reads close one each"
    assert len(frozen(study, 0).params) == len(asked.params)
    commits.clear()
    for epoch in range(1, 20):
        study.record(0, [row(epoch, 0.5)])
    assert not commits, "reports wait for each other"
    study.finish(0, "complete")
    assert len(commits) == 1


def test_a_broken_rule_that_only_a_combination_breaks_is_rejected(
    make: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "NUM_RANDOM_CHECKS", 0)
    text = """\
version: 1
name: search
model: {cnn: {head: {choice: [[16], []]}, head_batchnorm: {choice: [false, true]}}}
search: {sampler: random, trials: 20}
"""
    study = make(text)
    for _ in range(12):
        params = begin(study).params
        assert params["model.cnn.head"] or not params["model.cnn.head_batchnorm"]
    reasons = [
        t.user_attrs["ended"] for t in study.asker.frozen_trials if "rejected" in t.user_attrs
    ]
    assert reasons
    assert all(reason.startswith("not valid: ") for reason in reasons)
