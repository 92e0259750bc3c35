"""The reader of a run: what `study.db` says, whoever holds or left it."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sqlite3
from pathlib import Path

import pytest

from fer_ray.errors import UserError
from fer_ray.runs import RunDirectory
from fer_ray.search.reading import _value, overrides_of, read_run
from fer_ray.search.slots import slots_of
from fer_ray.store import write_json
from tests.searches import STARTED, pretend_search

ATTRIBUTES = ("attempts", "finished", "curve", "rungs", "seed", "seconds")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return pretend_search(tmp_path_factory.mktemp("made") / "run", trials=30, slots=3)


def copy_of(run: RunDirectory, place: Path) -> Path:
    shutil.copytree(run.path, place)
    return place


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path / "study.db") as database:
        database.execute(statement)
    database.close()


def test_every_trial_is_there_as_it_was(made: RunDirectory) -> None:
    history = read_run(made.path)
    assert len(history.trained) == 30
    assert [trial.number for trial in history.trials] == list(range(31))
    assert history.trials[30].state == "rejected"
    assert history.trials[5].state == "failed"
    assert "out of memory" in (history.trials[5].error or "")
    assert history.maximize
    assert history.rungs == (3, 9)
    assert history.metric == "val/accuracy"
    assert history.wanted == 30
    first = history.trials[0]
    assert first.params["model.cnn.head"] == ()
    assert first.params["model.cnn.depth"] == 3
    assert isinstance(first.params["model.cnn.depth"], int)
    assert history.space is not None
    assert history.space.base.search.trials == 30, "the overrides of its command are kept"
    for trial in history.trained:
        assert history.space.check_point(trial.params) == trial.params


def test_the_best_is_the_best_so_far_and_its_epoch(made: RunDirectory) -> None:
    history = read_run(made.path)
    best = max(max(row["objective"] for row in t.curve) for t in history.trained)
    assert history.winner is not None
    assert history.winner.best == best
    row = history.winner.curve[history.winner.best_epoch - 1]
    assert row["objective"] == best
    assert history.winner.value_at(3) == history.winner.curve[2]["best_objective"]
    assert history.winner.value_at(28) is None
    values = [trial.best for trial in history.ranking]
    assert values == sorted(values, reverse=True)


def test_the_frame_has_a_row_a_trial_and_a_column_a_hole(made: RunDirectory) -> None:
    frame = read_run(made.path).frame()
    assert list(frame["number"]) == list(range(30))
    assert "train.optimizer.adamw.lr" in frame
    assert frame.loc[0, "epochs"] == 27


def test_thresholds_follow_from_the_order_of_arrival(made: RunDirectory, tmp_path: Path) -> None:
    recorded = read_run(made.path)
    path = copy_of(made, tmp_path / "run")
    change(
        path,
        "UPDATE trial_user_attributes SET value_json = replace(replace(value_json, "
        "'\"threshold\"', '\"t\"'), '\"value\"', '\"v\"') WHERE key = 'rungs'",
    )
    derived = read_run(path)
    assert any(trial.visits for trial in recorded.trained)
    for one, other in zip(recorded.trained, derived.trained, strict=True):
        assert one.visits == other.visits
        for visit in other.visits:
            assert visit.value is not None
            assert visit.threshold is not None
            if one.number != 0:
                assert visit.stop == (visit.value < visit.threshold)


def test_a_run_of_an_older_format_says_less_but_reads(made: RunDirectory, tmp_path: Path) -> None:
    path = copy_of(made, tmp_path / "run")
    change(path, f"DELETE FROM trial_user_attributes WHERE key IN {ATTRIBUTES}")
    change(path, "DELETE FROM study_user_attributes")
    (path / "space.yaml").write_text("not: a space")
    (path / "status.json").unlink()
    history = read_run(path)
    assert history.space is None
    assert history.wanted is None
    assert history.rungs == ()
    full = read_run(made.path)
    for trial, wanted in zip(history.trained, full.trained, strict=True):
        assert trial.best == pytest.approx(wanted.best)
        assert trial.visits == ()
        assert not trial.is_exact
    assert slots_of(history).count >= 3


def test_a_curve_is_read_while_the_trial_runs(tmp_path: Path) -> None:
    run = pretend_search(tmp_path / "run", trials=12, slots=2, until_s=60.0)
    history = read_run(run.path)
    running = [trial for trial in history.trained if trial.state == "running"]
    assert len(running) == 2
    assert history.wanted == 12
    assert all(trial.curve and trial.ended is None for trial in running)


def test_a_writer_that_holds_the_file_does_not_stop_a_reader(
    made: RunDirectory, tmp_path: Path
) -> None:
    path = copy_of(made, tmp_path / "run")
    writer = sqlite3.connect(path / "study.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM trials")
    assert len(read_run(path).trained) == 30
    writer.execute("ROLLBACK")
    writer.close()


def test_a_half_written_transaction_of_a_killed_driver_is_left_alone(
    made: RunDirectory, tmp_path: Path
) -> None:
    path = copy_of(made, tmp_path / "run")
    writer = sqlite3.connect(path / "study.db", isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")  # spills half the transaction into the file
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE trial_user_attributes SET value_json = '0'")
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)
    writer.execute("ROLLBACK")
    writer.close()
    journal = killed / "study.db-journal"
    assert journal.is_file()
    before = {p.name: p.read_bytes() for p in killed.glob("study.db*")}
    assert read_run(killed).frame().equals(read_run(made.path).frame())
    assert {p.name: p.read_bytes() for p in killed.glob("study.db*")} == before


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run\.json"):
        read_run(tmp_path)
    run = RunDirectory(tmp_path / "train")
    run.create("train", "version: 1\n", "sample")
    with pytest.raises(UserError, match="not a search"):
        read_run(run.path)
    run.study_db.write_bytes(b"SQLite format 3\x00 and then nothing of use" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        read_run(run.path)


def test_the_reader_writes_nothing(made: RunDirectory) -> None:
    def state() -> dict[str, tuple[int, float]]:
        files = (p for p in made.path.rglob("*") if p.is_file())
        return {str(p): (p.stat().st_size, p.stat().st_mtime) for p in files}

    before = state()
    slots_of(read_run(made.path))
    assert state() == before


def test_overrides_are_recorded_or_read_off_the_command() -> None:
    words = ["fer-ray", "tune", "a.yaml", "--data", "d", "-s", "a=1", "--set=b=2", "--set", "c=3"]
    assert overrides_of({"command": words}) == ["data.source=d", "a=1", "b=2", "c=3"]
    assert overrides_of({"command": words, "overrides": ["x=1"]}) == ["x=1"]
    assert overrides_of({}) == []


# --- slots ----------------------------------------------------------------------------------------


def test_slots_are_those_that_the_run_noted(made: RunDirectory) -> None:
    slots = slots_of(read_run(made.path))
    assert slots.count == 3
    assert 0.9 < slots.busy_share < 1
    assert 0 <= slots.tail_share < 1 - slots.busy_share + 1e-9
    for slot in range(3):
        stays = sorted((s for s in slots.stays if s.slot == slot), key=lambda s: s.start_s)
        assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(stays))


def test_trials_are_dealt_to_slots_where_none_are_noted(made: RunDirectory, tmp_path: Path) -> None:
    path = copy_of(made, tmp_path / "run")
    change(path, "DELETE FROM trial_user_attributes WHERE key = 'attempts'")
    dealt, noted = slots_of(read_run(path)), slots_of(read_run(made.path))
    assert dealt.count == noted.count
    assert dealt.busy_share == pytest.approx(noted.busy_share, abs=0.1)


def test_an_attempt_that_was_killed_counts_until_its_last_epoch(
    made: RunDirectory, tmp_path: Path
) -> None:
    path = copy_of(made, tmp_path / "run")
    trial = read_run(path).trial(0)
    third = trial.curve[2]["time"]
    attempts = [
        {"slot": 0, "started": STARTED, "ended": None, "from_epoch": 0},
        {"slot": 2, "started": third + 1, "ended": trial.finished, "from_epoch": 3},
    ]
    change(
        path,
        f"UPDATE trial_user_attributes SET value_json = '{json.dumps(attempts)}' "
        "WHERE key = 'attempts' AND trial_id = 1",
    )
    stays = [stay for stay in slots_of(read_run(path)).stays if stay.trial == 0]
    assert [stay.slot for stay in stays] == [0, 2]
    assert stays[0].end_s == pytest.approx(third - STARTED)


def test_no_trial_no_slots(tmp_path: Path) -> None:
    run = pretend_search(tmp_path / "run", trials=2, until_s=0.0)
    change(run.path, "DELETE FROM trials")
    write_json(run.status_json, {})
    history = read_run(run.path)
    assert slots_of(history).busy_share == 0
    assert history.winner is None
    assert history.frame().empty
    assert not math.isnan(slots_of(history).tail_share)


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ('["1", "1.0"]', [1, 1.0]),
        ('["false", "0", "[2]"]', [False, 0, (2,)]),
        ('["none", "all"]', ["none", "all"]),
        ('["1", "2"]', ["1", "2"]),
    ],
)
def test_choices_that_optuna_takes_for_one_come_back_as_they_were(
    choices: str, values: list[object]
) -> None:
    attributes = {"choices": json.loads(choices)}
    text = json.dumps({"name": "CategoricalDistribution", "attributes": attributes})
    found = [_value(float(index), text) for index in range(len(values))]
    assert list(map(repr, found)) == list(map(repr, values))
