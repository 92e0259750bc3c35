"""A real search whose run is in object storage, on the session's Ray: nothing else is shared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_ray import api
from fer_ray.bundle.load import find_bundle, load_bundle
from fer_ray.cluster.object_folder import ObjectFolder
from fer_ray.search.results import RunSummary
from tests.object_storage import s3_server

pytestmark = pytest.mark.usefixtures("ray_session")

SPACE = """\
version: 1
name: stored
data: {source: sample, image_size: 24, crop: 20}
model: {cnn: {channels: [4, 8], convs_per_block: 1, head_dropout: {float: [0.0, 0.4]}}}
train:
  epochs: 2
  batch_size: 500
  precision: fp32
  optimizer: {sgd: {lr: {log: [1.0e-3, 1.0e-1]}}}
  schedule: {constant: {}}
search: {trials: 3, seed: 3}
scheduler: {asha: {grace_epochs: 1, reduction: 2}}
keep: {top: 1}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def uri(cache: Path) -> Iterator[str]:
    """An address that says all: Ray's workers began before the server did."""
    with s3_server():
        place = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").replace(":", "%3A")
        yield f"s3://key:secret@bucket/run?scheme=http&endpoint_override={place}"


@pytest.fixture(scope="module")
def run(uri: str, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    space = tmp_path_factory.mktemp("space") / "stored.yaml"
    space.write_text(SPACE)
    return api.tune(space, out=uri)


def test_the_storage_has_all_that_matters(run: RunSummary, uri: str) -> None:
    folder = ObjectFolder(uri)
    names = folder.names()
    assert {"run.json", "space.yaml", "study.db", "status.json", "best.json"} <= set(names)
    assert {"trials.parquet", "report.html", "trials/2/resolved.yaml"} <= set(names)
    kept = {name.split("/")[1] for name in names if name.startswith("bundles/")}
    assert kept == {"0", str(run.winner)}, "as keep.top says"
    assert not [name for name in names if name.endswith("checkpoint.safetensors")]
    assert "driver.json" not in names


def test_another_machine_looks_deploys_and_goes_on(run: RunSummary, uri: str, cache: Path) -> None:
    shutil.rmtree(cache)
    history = api.open_run(uri)
    assert len(history.trained) == 3
    assert load_bundle(find_bundle(uri)).id == run.bundle_id
    assert "secret" not in api.report(uri).read_text()
    more = api.resume(uri, overrides=["search.trials=4", "confirm={top: 1, seeds: 2}"])
    assert sum(more.ended.values()) == 4
    again = api.open_run(uri)
    assert again.attributes["confirm"] == more.confirmation
    assert more.confirmation is not None
    assert len(more.confirmation["trainings"]) == more.confirmation["wanted"]
    assert [t.curve for t in again.trials[:3]] == [t.curve for t in history.trials]
    assert len(again.sessions) == 2
