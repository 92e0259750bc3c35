"""Object storage in bad weather: delays cost little, refusals are never rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UnfinishedError
from tests.bundles import tiny_bundle
from tests.scoring import assert_same_rows, rows_of, scored
from tests.weather import BUCKET, Weather, address, bucket_of_faces, proxy

NUM_OBJECTS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with bucket_of_faces(NUM_OBJECTS) as place:
        yield place


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")


def test_a_delay_costs_little_and_refusals_are_never_rows(
    server: tuple[str, int], tmp_path: Path, predictor: Predictor
) -> None:
    weather = Weather()
    with proxy(server, weather) as port:
        fair = scored(address(port), tmp_path / "fair", predictor, rows_a_shard=100)
        assert fair.rows == NUM_OBJECTS
        assert fair.errors == {"not_an_image": 2}
        assert fair.skipped == {"other_name": 1}
        first = rows_of(tmp_path / "fair").column("path")[0].as_py()
        assert first == f"s3://{BUCKET}/0/a b/0000.jpg"
        for path in (tmp_path / "fair").rglob("*"):
            assert not path.is_file() or b"secret" not in path.read_bytes(), path

        weather.slow_down = 0.2
        weather.expired_until = time.monotonic() + 2
        storm = scored(
            address(port), tmp_path / "storm", predictor, rows_a_shard=100, give_up_after_s=30
        )
        assert weather.seen[503] > NUM_OBJECTS / 10
        assert weather.seen[400] > 0
        assert storm.errors == {"not_an_image": 2}
        assert_same_rows(rows_of(tmp_path / "fair"), rows_of(tmp_path / "storm"))


def test_credentials_that_stay_expired_stop_the_job_and_it_resumes(
    server: tuple[str, int], tmp_path: Path, predictor: Predictor
) -> None:
    weather = Weather()
    names = tmp_path / "names.txt"
    keys = [f"{number % 3}/a b/{number:04d}.jpg" for number in range(1, 40)]
    with proxy(server, weather) as port:
        names.write_text("".join(f"s3://{BUCKET}/{key}\n" for key in [*keys, "0/gone.jpg"]))
        sources = [str(names), address(port, "0/a b/0003.jpg")]
        weather.expired_until = time.monotonic() + 3600
        with pytest.raises(UnfinishedError):
            scored(sources, tmp_path / "out", predictor, rows_a_shard=10, give_up_after_s=0.1)
        assert not list((tmp_path / "out").glob("part-*"))
        weather.expired_until = 0.0
        report = scored(sources, tmp_path / "out", predictor, rows_a_shard=10, resume=True)
    assert report.rows == 40
    assert report.errors == {"missing": 1}
