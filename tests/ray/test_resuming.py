"""A search that ended, was stopped or is extended: `study.db` alone carries it on."""

from __future__ import annotations

import json
import pickle
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.data.loading import sample_split
from fer_ray.errors import UnfinishedError, UserError
from fer_ray.search.results import RunSummary

pytestmark = pytest.mark.usefixtures("ray_session")

SPACE = """\
version: 1
name: tiny
data: {source: sample, image_size: 24, crop: 20}
model:
  cnn: {channels: [4, 8], convs_per_block: 1, head_dropout: {float: [0.0, 0.4]}}
augment: {erase_p: 0.0}
train:
  epochs: 3
  batch_size: {choice: [250, 500]}
  precision: fp32
  optimizer: {sgd: {lr: {log: [1.0e-3, 1.0e-1]}}}
  schedule: {cosine: {warmup_epochs: 0}}
search: {trials: 4, seed: 3}
scheduler: none
confirm: {top: 1, seeds: 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> RunSummary:
    folder = tmp_path_factory.mktemp("resuming")
    (folder / "tiny.yaml").write_text(SPACE)
    return api.tune(folder / "tiny.yaml", out=folder / "run")


def study_of(path: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{path / 'study.db'}")


class Planted:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def plant(run: Path, marker: Path) -> None:
    """Pickles wherever Ray, Optuna or torch leave some."""
    payload = pickle.dumps(Planted(marker))
    names = (
        "ray/session-1/searcher-state-1.pkl",
        "ray/session-1/trainable.pkl",
        "ray/session-1/tuner.pkl",
        "study.pkl",
        "trials/0/checkpoint.pt",
        "trials/0/params.pkl",
        "bundles/0/model.pt",
        "confirm/0-0.pkl",
    )
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(payload)


def test_the_best_is_confirmed_beside_the_defaults(run: RunSummary) -> None:
    study = study_of(run.path)
    found = study.user_attrs["confirm"]
    assert found == run.confirmation
    assert found["ended"] == "finished"
    assert found["images"] == 600
    best = max((t for t in study.trials if t.number), key=lambda t: t.value or 0.0).number
    assert [c["trial"] for c in found["comparisons"]] == [best]
    wanted = {(trial, index) for trial in (0, best) for index in (0, 1)}
    assert {(t["trial"], t["index"]) for t in found["trainings"]} == wanted
    seeds = [t["seed"] for t in found["trainings"]]
    searched = [trial.user_attrs["seed"] for trial in study.trials]
    assert len({*seeds, *searched}) == len(seeds) + len(searched), "seeds are fresh"
    assert len(study.trials) == 4, "a confirmation adds no trial"
    assert all(t["epochs"] == 3 for t in found["trainings"]), "nothing stops a confirmation"
    assert any("the defaults" in line for line in run.lines())


def test_the_best_bundle_has_the_study_s_best_value(run: RunSummary) -> None:
    predictor = api.load_predictor(str(run.path / "best"), precision="fp32", num_threads=1)
    split = sample_split("validation")
    right = predictor.logits(split.images).argmax(1) == split.labels
    assert float(right.mean()) == pytest.approx(study_of(run.path).best_value, abs=1e-12)


def test_time_stamps_make_a_timeline(run: RunSummary) -> None:
    study = study_of(run.path)
    (session,) = study.user_attrs["sessions"]
    assert session["how"] == "finished"
    assert session["slots"] == 2
    for trial in study.trials:
        noted = trial.user_attrs
        (attempt,) = noted["attempts"]
        assert attempt["slot"] in (0, 1)
        assert attempt["from_epoch"] == 0
        times = [row["time"] for row in noted["curve"]]
        order = [noted["asked"], noted["started"], *times, noted["finished"], session["ended"]]
        assert order == sorted(order)
        assert attempt["started"] == noted["started"]
        assert attempt["ended"] == noted["finished"]


def test_nothing_planted_is_executed_and_a_finished_run_stays_as_it_is(
    run: RunSummary, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    plant(run.path, marker)
    before = [trial.user_attrs for trial in study_of(run.path).trials]
    again = api.resume(run.path)
    assert (again.winner, again.value, again.bundle_id) == (run.winner, run.value, run.bundle_id)
    assert [trial.user_attrs for trial in study_of(run.path).trials] == before
    space = tmp_path / "next.yaml"
    space.write_text(SPACE.replace("confirm: {top: 1, seeds: 2}\n", ""))
    overrides = [f"search.start_from={run.path}", "search.trials=2", "train.epochs=1"]
    following = api.tune(space, out=tmp_path / "next", overrides=overrides)
    assert not marker.exists()
    first, second = study_of(following.path).trials[:2]
    assert first.user_attrs["origin"] == "defaults"
    assert second.user_attrs["origin"] == "start_from"
    best = max((t for t in study_of(run.path).trials if t.number), key=lambda t: t.value or 0)
    taken = study_of(following.path).user_attrs["start_points"]
    assert best.params in taken or run.winner == 0


def test_more_trials_extend_a_run(run: RunSummary) -> None:
    before = study_of(run.path).trials
    more = api.resume(run.path, overrides=["search.trials=6", "confirm=null"])
    after = study_of(run.path).trials
    assert [t.number for t in after] == list(range(6))
    assert [t.params for t in after[:4]] == [t.params for t in before]
    assert len({tuple(sorted(t.params.items())) for t in after}) == 6
    assert sum(more.ended.values()) == 6
    assert list(more.trials["number"]) == list(range(6))
    assert json.loads((run.path / "run.json").read_text())["overrides"][0] == "search.trials=6"


def test_a_changed_search_is_refused(run: RunSummary) -> None:
    with pytest.raises(UserError, match="would change a search"):
        api.resume(run.path, overrides=["train.epochs=9"])
    path = run.path / "space.yaml"
    text = path.read_text()
    path.write_text(text.replace("0.4]", "0.3]"))
    with pytest.raises(UserError, match="has changed since the run began"):
        api.resume(run.path)
    path.write_text(text)
    document = json.loads((run.path / "run.json").read_text())
    changed = {**document, "data_fingerprint": "f" * 64}
    (run.path / "run.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="the data have changed"):
        api.resume(run.path)
    (run.path / "run.json").write_text(json.dumps(document))


def test_a_stopped_search_goes_on_where_it_was(tmp_path: Path) -> None:
    space = tmp_path / "tiny.yaml"
    space.write_text(SPACE.replace("epochs: 3", "epochs: 200").replace("confirm:", "# confirm:"))
    out = tmp_path / "run"
    seen: dict[str, Any] = {}

    def stop_when_it_runs() -> None:
        while not (out / "status.json").exists() or not _is_training(out):
            time.sleep(0.05)
        seen["dashboard"] = _ask_dashboard(out)
        with pytest.raises(UserError, match="another process works on"):
            api.resume(out)
        api.stop(out)

    watcher = threading.Thread(target=stop_when_it_runs, daemon=True)
    watcher.start()
    with pytest.raises(UnfinishedError, match=r"(?s)stopped as asked.*resume") as caught:
        api.tune(space, out=out, overrides=["search.trials=2"])
    watcher.join()
    assert caught.value.exit_code == 4
    assert seen["dashboard"] == ["tiny"]
    left = study_of(out).trials
    assert {t.state.name for t in left} == {"RUNNING"}
    assert all((out / t.user_attrs["checkpoint"]).is_file() for t in left)
    best = max(left, key=lambda t: max(row["objective"] for row in t.user_attrs["curve"]))
    assert (out / "best").resolve().name.startswith(f"{best.number}-epoch-")
    load_bundle(out / "best")
    reached = {t.number: len(t.user_attrs["curve"]) for t in left}
    with pytest.raises(UserError, match="nothing works on"):
        api.stop(out)
    summary = api.resume(out, overrides=["stop.target=0.01"])
    ended = study_of(out).trials
    resumed = [trial for trial in ended[:2] if len(trial.user_attrs["attempts"]) > 1]
    assert resumed
    for trial in resumed:
        assert trial.user_attrs["attempts"][-1]["from_epoch"] == reached[trial.number]
        assert len(trial.user_attrs["curve"]) <= reached[trial.number] + 2
    for trial in ended[:2]:
        if trial not in resumed:  # the first to go on had reached the target before
            assert trial.user_attrs["ended"] == "target elsewhere"
            assert len(trial.user_attrs["curve"]) == reached[trial.number]
    assert load_bundle(out / "best").id == summary.bundle_id
    assert not list(out.glob("bundles/*-epoch-*")), "the bundle of the interruption is gone"


def _is_training(out: Path) -> bool:
    running = json.loads((out / "status.json").read_text())["running"]
    return any(trial["epoch"] > 0 for trial in running)


def _ask_dashboard(out: Path) -> list[str]:
    """The names of the studies that the real optuna-dashboard shows, while the search goes on."""
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from optuna_dashboard import wsgi

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    application = wsgi(f"sqlite:///{out / 'study.db'}")
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/api"
        with urllib.request.urlopen(f"{address}/studies", timeout=20) as answer:
            studies = json.load(answer)["study_summaries"]
        identity = studies[0]["study_id"]
        with urllib.request.urlopen(f"{address}/studies/{identity}?after=0", timeout=20) as answer:
            trials = json.load(answer)["trials"]
        server.shutdown()
    assert any(trial["state"] == "Running" for trial in trials)
    return [study["study_name"] for study in studies]
