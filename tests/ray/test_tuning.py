"""A real search on the session's Ray: what `study.db` says is what happened."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.errors import NothingSucceededError, UserError
from fer_ray.search.asha import JudgedTrial, replay
from fer_ray.search.results import RunSummary

pytestmark = pytest.mark.usefixtures("ray_session")

SPACE = """\
version: 1
name: tiny
data: {source: sample, image_size: 24, crop: 20}
model:
  one_of:
    cnn: {channels: [4, 8], convs_per_block: 1, head_dropout: {float: [0.0, 0.4]}}
    resnet: {arch: resnet18, weights: none, stem: imagenet}
augment: {erase_p: 0.0}
train:
  epochs: 4
  batch_size: 250
  optimizer: {sgd: {lr: {log: [1.0e-3, 1.0e-1]}}}
forbid: [{model: resnet}]
search: {trials: 6, seed: 3}
scheduler: {asha: {grace_epochs: 1, reduction: 2}}
keep: {top: 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> RunSummary:
    folder = tmp_path_factory.mktemp("tuning")
    space = folder / "tiny.yaml"
    space.write_text(SPACE)
    return api.tune(space, out=folder / "run")


def optuna_trials(run: RunSummary) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run.path / 'study.db'}")
    return [trial for trial in study.trials if "curve" in trial.user_attrs]


def test_every_trial_ran_and_some_were_pruned(run: RunSummary) -> None:
    trials = optuna_trials(run)
    assert len(trials) == 6
    states = {trial.state.name for trial in trials}
    assert states == {"COMPLETE", "PRUNED"}
    assert sum(run.ended.values()) == 6


def test_states_and_curves_are_those_of_the_trials(run: RunSummary) -> None:
    for trial in optuna_trials(run):
        curve = trial.user_attrs["curve"]
        epochs = [row["epoch"] for row in curve]
        assert epochs == list(range(1, len(curve) + 1))
        best = max(row["objective"] for row in curve)
        assert trial.value == pytest.approx(best)
        complete = trial.state.name == "COMPLETE"
        assert complete == (len(curve) == 4)
        if not complete:
            assert trial.user_attrs["rungs"][-1]["stop"]
            assert trial.user_attrs["rungs"][-1]["rung"] == len(curve)


def test_every_decision_follows_from_the_curves(run: RunSummary) -> None:
    noted = optuna.load_study(study_name=None, storage=f"sqlite:///{run.path / 'study.db'}")
    judged = [
        JudgedTrial(t.number, t.user_attrs["curve"], t.user_attrs["rungs"])
        for t in optuna_trials(run)
    ]
    attributes = noted.user_attrs
    compared, faults = replay(judged, attributes["rungs"], attributes["reduction"], {0}, sign=1.0)
    assert compared >= 6
    assert not faults


def test_trial_0_is_the_defaults_and_completes(run: RunSummary) -> None:
    first = optuna_trials(run)[0]
    assert first.number == 0
    assert first.state.name == "COMPLETE"
    assert first.params["model"] == "cnn"
    assert first.params["model.cnn.head_dropout"] == pytest.approx(0.2)
    assert run.default_value == pytest.approx(first.value)


def test_forbidden_points_are_told_infeasible_and_not_trained(run: RunSummary) -> None:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run.path / 'study.db'}")
    rejected = [trial for trial in study.trials if trial.params.get("model") == "resnet"]
    assert rejected
    assert all(trial.state.name == "FAIL" for trial in rejected)
    assert all(not (run.path / "bundles" / str(trial.number)).exists() for trial in rejected)


def test_best_is_the_best_trial_and_loads(run: RunSummary) -> None:
    trials = run.trials
    assert run.winner == trials.loc[trials["value"].idxmax(), "number"]
    assert (run.path / "best").resolve() == run.path / "bundles" / str(run.winner)
    bundle = load_bundle(run.path / "best")
    assert bundle.id == run.bundle_id
    # The study's value is measured in the training's precision, the bundle's in fp32.
    assert run.validation["accuracy"] == pytest.approx(run.value, abs=0.01)


def test_only_the_top_bundles_and_trial_0_are_kept(run: RunSummary) -> None:
    kept = {int(path.name) for path in (run.path / "bundles").iterdir()}
    assert len(kept - {0}) <= 2
    assert run.winner in kept
    assert not list(run.path.glob("trials/*/checkpoint.safetensors"))


def test_a_resolved_config_trains_to_the_same_result(run: RunSummary, tmp_path: Path) -> None:
    resolved = run.path / "trials" / str(run.winner) / "resolved.yaml"
    threads = torch.get_num_threads()
    try:
        again = api.train(resolved, out=tmp_path / "again", num_threads=1)
    finally:
        torch.set_num_threads(threads)
    trial = next(t for t in optuna_trials(run) if t.number == run.winner)
    expected = [row["objective"] for row in trial.user_attrs["curve"]]
    assert [row["objective"] for row in again.curve] == expected


def test_the_trial_that_reaches_the_target_keeps_its_bundle(tmp_path: Path) -> None:
    space = tmp_path / "target.yaml"
    space.write_text(SPACE)
    run = api.tune(space, out=tmp_path / "run", overrides=["stop.target=0.05"])
    assert run.ended.get("target", 0) >= 1
    assert sum(run.ended.values()) <= 3
    assert load_bundle(run.path / "best").id == run.bundle_id


def test_a_search_in_which_all_fail_says_why(tmp_path: Path) -> None:
    space = tmp_path / "bad.yaml"
    text = SPACE.replace("channels: [4, 8]", "depth: 6").replace("crop: 20", "crop: 16")
    space.write_text(text)
    with pytest.raises(NothingSucceededError, match="shrink 16 pixels to nothing"):
        api.tune(
            space, out=tmp_path / "run", overrides=["search.trials=2", "model.cnn.pool=flatten"]
        )


def test_workers_without_a_dashboard_are_refused_and_not_left_hanging(tmp_path: Path) -> None:
    space = tmp_path / "workers.yaml"
    space.write_text(SPACE)
    with pytest.raises(UserError, match="need Ray's dashboard"):
        api.tune(space, out=tmp_path / "run", overrides=["resources.per_trial.workers=2"])
    assert not (tmp_path / "run").exists()
