"""A run in object storage: what the driver, a trial and an onlooker see, on a real S3 server."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.cluster.object_folder import ObjectFolder
from fer_ray.errors import OutputExistsError, UserError
from fer_ray.search.mirror import DRIVER, Mirror, local_run, request_remote_stop
from fer_ray.search.run_files import run_files
from tests.object_storage import s3_server
from tests.searches import pretend_search


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def another_machine(cache: Path) -> None:
    """Nothing of this machine's disk is left."""
    shutil.rmtree(cache)


def pretended(uri: str) -> Mirror:
    mirror = Mirror(uri)
    mirror.require_absent()
    pretend_search(mirror.run.path, trials=6)
    mirror.push()
    return mirror


def test_another_machine_sees_the_run_as_it_was_put_out(cache: Path) -> None:
    mirror = pretended("s3://bucket/seen")
    (mirror.run.path / "ray").mkdir()
    (mirror.run.path / "ray" / "tuner.pkl").write_bytes(b"x")
    mirror.push()
    before = [(t.number, t.state, t.curve, t.params) for t in api.open_run(mirror.run.path).trials]
    names = ObjectFolder("s3://bucket/seen").names()
    assert {"run.json", "space.yaml", "study.db"} <= set(names)
    assert not [name for name in names if name.startswith("ray/") or "/." in name]
    another_machine(cache)
    history = api.open_run("s3://bucket/seen")
    assert [(t.number, t.state, t.curve, t.params) for t in history.trials] == before


def test_a_study_that_is_being_written_is_put_out_whole(cache: Path) -> None:
    mirror = pretended("s3://bucket/writing")
    with closing(sqlite3.connect(mirror.run.study_db)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE studies SET study_name = 'half'")
        mirror.run.study_db.touch()
        mirror.push()
        data = ObjectFolder("s3://bucket/writing").read("study.db")
        writer.rollback()
    assert data is not None
    copy = cache / "copy.db"
    copy.write_bytes(data)
    with closing(sqlite3.connect(copy)) as reader:
        assert reader.execute("SELECT study_name FROM studies").fetchall() == [("pretended",)]


def test_what_is_removed_here_goes_there_and_best_is_a_file(cache: Path) -> None:
    mirror = pretended("s3://bucket/best")
    folder = ObjectFolder("s3://bucket/best")
    for number in (1, 2):
        bundle = mirror.run.bundle(number)
        bundle.mkdir(parents=True)
        (bundle / "bundle.json").write_text("{}")
        mirror.run.point_best(number)
        mirror.push()
    assert json.loads(folder.read("best.json") or b"") == {"bundle": "bundles/2"}
    shutil.rmtree(mirror.run.bundle(1))
    mirror.push()
    assert folder.names("bundles") == ["bundles/2/bundle.json"]
    another_machine(cache)
    assert (local_run("s3://bucket/best") / "best").resolve().name == "2"


def test_a_bundle_of_a_run_is_found_by_the_run_s_address(cache: Path) -> None:
    from fer_ray.bundle.load import find_bundle

    shipped = find_bundle(None)
    with run_files("s3://bucket/deploy") as files:
        shutil.copytree(shipped, files.run.bundle(4))
        files.copy_out(files.run.bundle(4))
    folder = ObjectFolder("s3://bucket/deploy")
    folder.write("best.json", b'{"bundle": "bundles/4"}')
    assert load_bundle(find_bundle("s3://bucket/deploy")).id == load_bundle(shipped).id
    folder.write("best.json", b'{"bundle": "../elsewhere"}')
    with pytest.raises(UserError, match="names no bundle of its run"):
        find_bundle("s3://bucket/deploy")


def test_a_trial_s_files_pass_from_process_to_process() -> None:
    with run_files("s3://bucket/trial") as first:
        checkpoint = first.run.checkpoint(3)
        assert not first.copy_in(checkpoint)
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_bytes(b"epoch 5")
        first.copy_out(checkpoint)
        assert not first.is_stop_asked
    assert not checkpoint.exists(), "a process leaves nothing on its disk"
    ObjectFolder("s3://bucket/trial").write("stop.json", b"{}")
    with run_files("s3://bucket/trial") as second:
        assert second.copy_in(second.run.checkpoint(3))
        assert second.run.checkpoint(3).read_bytes() == b"epoch 5"
        assert second.is_stop_asked
        second.remove(second.run.checkpoint(3))
        assert not second.copy_in(second.run.checkpoint(3))


def test_a_new_session_keeps_the_checkpoints_of_the_unfinished(cache: Path) -> None:
    mirror = pretended("s3://bucket/session")
    for number in (0, 1, 9):
        mirror.folder.write(f"trials/{number}/checkpoint.safetensors", b"x")
        mirror.folder.write(f"bundles/{number}/bundle.json", b"{}")
    mirror.folder.write("stop.json", b"{}")
    mirror.begin_session({0: True, 1: False})
    kept = [name for name in mirror.folder.names("trials") if name.endswith("safetensors")]
    assert kept == ["trials/1/checkpoint.safetensors"], "9 began and was never noted"
    assert mirror.folder.names("bundles") == ["bundles/0/bundle.json", "bundles/1/bundle.json"]
    assert not mirror.folder.exists("stop.json")


def test_a_run_is_never_overwritten_and_driven_by_one_machine(cache: Path) -> None:
    mirror = pretended("s3://bucket/mine")
    with pytest.raises(OutputExistsError, match="fer-ray resume s3://bucket/mine"):
        Mirror("s3://bucket/mine").require_absent()
    mirror.require_alone()
    elsewhere = {"host": "elsewhere", "pid": 1, "time": time.time() - 5}
    mirror.folder.write(DRIVER, json.dumps(elsewhere).encode())
    with pytest.raises(UserError, match="elsewhere works on s3://bucket/mine"):
        mirror.require_alone()
    mirror.folder.write(DRIVER, json.dumps({**elsewhere, "time": time.time() - 500}).encode())
    mirror.require_alone()


def test_a_stop_is_carried_to_the_driver_and_to_the_trials(cache: Path) -> None:
    mirror = pretended("s3://bucket/stops")
    with mirror.driven():
        request_remote_stop("s3://bucket/stops", "fer-ray stop")
        mirror.tick()
        assert json.loads(mirror.run.stop_file.read_text())["by"] == "fer-ray stop"
    with pytest.raises(UserError, match="nothing works on s3://bucket/stops"):
        request_remote_stop("s3://bucket/stops", "fer-ray stop")


def test_no_run_and_no_storage_are_said() -> None:
    with pytest.raises(UserError, match="s3://bucket/none is not a run"):
        api.open_run("s3://bucket/none")
    with pytest.raises(OSError, match="does not answer"):
        ObjectFolder("s3://another-bucket/x").write("a", b"b")
