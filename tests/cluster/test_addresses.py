"""`--address` of every kind, against a head with its own processes, a token and a dashboard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fer_ray.data.sample import write_sample
from tests.cluster.heads import Head, head

TRIALS = 4
SPACE = f"""\
version: 1
name: jobs
data: {{source: sample, image_size: 24, crop: 20}}
model: {{cnn: {{channels: [4, 8], convs_per_block: 1, head_dropout: {{float: [0.0, 0.4]}}}}}}
train: {{epochs: 2, batch_size: 500, optimizer: {{sgd: {{lr: {{log: [1.0e-3, 1.0e-1]}}}}}},
  schedule: {{cosine: {{warmup_epochs: 0}}}}}}
search: {{trials: {TRIALS}, seed: 3}}
scheduler: none
keep: {{top: 1}}
"""
CONFIG = """\
version: 1
name: one
data: {source: sample, image_size: 24, crop: 24}
model: {cnn: {channels: [4, 8], convs_per_block: 1}}
train: {epochs: 1, batch_size: 500, optimizer: {sgd: {lr: 0.1}}, schedule: {constant: {}}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head() as running:
        yield running


def test_a_search_as_a_job_detached_watched_stopped_and_resumed(
    cluster: Head, tmp_path: Path
) -> None:
    space, run, url = tmp_path / "space.yaml", tmp_path / "run", cluster.dashboard
    # Long enough to be stopped, whatever the machine.
    space.write_text(SPACE.replace("epochs: 2", "epochs: 400"))
    began = cluster.fer_ray("tune", space, "--out", run, "--address", url, "--detach")
    assert began.returncode == 0, began.stderr
    assert began.stdout.startswith("fer-ray-tune-"), "the job's id, for scripts"
    assert f"fer-ray stop {run} --address {url}" in began.stderr
    until = time.monotonic() + 120
    while not (run / "status.json").is_file():
        assert time.monotonic() < until, "the search does not begin"
        time.sleep(0.5)
    space.unlink()  # it went along
    seen = cluster.fer_ray("status", run, "--json", "--address", url)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    status = json.loads(next(line for line in seen.stdout.splitlines() if line.startswith("{")))
    assert status["state"] == "running", status
    stopped = cluster.fer_ray("stop", run, "--address", url)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert f"fer-ray resume {run}" in stopped.stdout
    until = time.monotonic() + 120
    while cluster.fer_ray("stop", run).returncode != 2:  # nothing works on it any more
        assert time.monotonic() < until, "the search does not end"
        time.sleep(0.5)
    resumed = cluster.fer_ray(
        "resume", run, "-s", "stop.target=0.01", "--address", url
    )  # the first validation reaches it
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "winner: trial" in resumed.stdout, "what the job prints is passed on"


def test_a_job_s_exit_code_is_ours(cluster: Head, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "something").touch()
    done = cluster.fer_ray(
        "tune", tmp_path / "space.yaml", "--out", tmp_path / "run", "--address", cluster.dashboard
    )
    assert done.returncode == 2, done.stdout
    assert "already exists" in done.stdout


def test_training_and_scoring_join_by_host_and_port(cluster: Head, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(CONFIG)
    write_sample(tmp_path / "faces", 40, 0)
    run, scores = tmp_path / "run", tmp_path / "scores"
    trained = cluster.fer_ray(
        "train", tmp_path / "one.yaml", "--out", run, "--address", cluster.address
    )
    assert trained.returncode == 0, trained.stderr
    assert (run / "best" / "bundle.json").is_file()
    scored = cluster.fer_ray(
        *("score", tmp_path / "faces", "--out", scores, "--bundle", run),
        *("--precision", "fp32", "--address", cluster.address),
    )
    assert scored.returncode == 0, scored.stderr
    assert sum(pq.read_metadata(part).num_rows for part in scores.glob("part-*")) == 40


def test_the_doctor_finds_nothing_wrong_with_it(cluster: Head, tmp_path: Path) -> None:
    done = cluster.fer_ray("doctor", "--address", cluster.address, "--storage", tmp_path, "--json")
    found = json.loads(done.stdout)
    (node,) = found["nodes"]
    assert node["head"] is True
    assert node["resources"]["CPU"] == 2
    assert abs(node["clock_s"]) < 1
    assert node["fer_ray"] == found["machine"]["versions"]["fer-ray"]
    # This machine itself may lack something; the cluster does not.
    assert not [f for f in found["faults"] if "node" in f["what"] or str(tmp_path) in f["what"]]
    assert done.returncode == (0 if found["ok"] else 1)


def test_who_has_no_token_is_told_so(cluster: Head, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    for address in (cluster.dashboard, cluster.address):
        done = cluster.fer_ray(
            *("tune", tmp_path / "space.yaml", "--out", tmp_path / "run", "--address", address),
            without=("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"),
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert "RAY_AUTH_MODE=token" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_would_mean_something_else_there_is_refused(cluster: Head, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    words = ("tune", tmp_path / "space.yaml", "--address", cluster.dashboard)
    for extra, said in (
        (("--out", "runs/x"), "--out runs/x is relative"),
        (("--out", tmp_path / "run", "--data", "data/fer2013"), "--data data/fer2013 is relative"),
        (("--out", tmp_path / "run", "-s", "search.trils=3"), "search.trils"),
    ):
        done = cluster.fer_ray(*words, *extra)
        assert done.returncode == 2
        assert said in done.stderr
    nobody = cluster.fer_ray(
        *("status", tmp_path / "run", "--address", "http://127.0.0.1:1"),
    )
    assert nobody.returncode == 2
    assert "no dashboard of Ray answers" in nobody.stderr
    lonely = cluster.fer_ray("tune", tmp_path / "space.yaml", "--detach")
    assert lonely.returncode == 2
    assert "no dashboard is named" in lonely.stderr
