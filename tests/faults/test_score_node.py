"""A worker node of a scoring job is killed: Ray makes its chunks again, and no row is missing."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.score import ray_data
from tests.bundles import tiny_bundle
from tests.scoring import assert_same_rows, image_bytes, rows_of, scored

NUM_IMAGES = 20_000


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and two workers of two."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.long
def test_a_node_that_dies_costs_nothing_but_time(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(load_bundle(tiny_bundle(tmp_path / "bundle")), "fp32", "cpu")
    (tmp_path / "in").mkdir()
    for number in range(11):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number, "JPEG"))
    for number in range(NUM_IMAGES):
        os.link(tmp_path / f"{number % 11}.jpg", tmp_path / "in" / f"{number:05d}.jpg")
    doomed = cluster.add_node(num_cpus=2)
    monkeypatch.setattr(ray_data, "PIXEL_BYTES_A_CHUNK", 24 * 24 * 250)

    def kill() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until and not list((tmp_path / "out").glob(".part-*")):
            time.sleep(0.2)
        cluster.remove_node(doomed, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    report = scored(tmp_path / "in", tmp_path / "out", predictor, engine="ray")
    thread.join()
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert (report.rows, report.errors) == (NUM_IMAGES, {})
    scored(tmp_path / "in", tmp_path / "local", predictor)
    assert_same_rows(rows_of(tmp_path / "local"), rows_of(tmp_path / "out"))
