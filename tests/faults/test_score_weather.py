"""Object storage in bad weather, at length: the rate under delays, and a minute of refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from tests.bundles import tiny_bundle
from tests.scoring import scored
from tests.weather import Weather, address, bucket_of_faces, proxy

NUM_OBJECTS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with bucket_of_faces(NUM_OBJECTS) as place:
        yield place


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")


@pytest.mark.long
def test_30_ms_a_get_keep_seven_tenths_of_the_rate(
    server: tuple[str, int], tmp_path: Path, predictor: Predictor
) -> None:
    weather = Weather()
    seconds: dict[float, list[float]] = {0.0: [], 0.03: []}
    with proxy(server, weather) as port:
        for turn in range(3):
            for delay_s, found in seconds.items():
                weather.delay_s = delay_s
                report = scored(address(port), tmp_path / f"{turn}-{delay_s}", predictor)
                found.append(report.seconds)
    assert min(seconds[0.0]) / min(seconds[0.03]) >= 0.7, seconds


@pytest.mark.long
def test_20_seconds_of_expired_credentials_are_borne(
    server: tuple[str, int], tmp_path: Path, predictor: Predictor
) -> None:
    weather = Weather(delay_s=0.03, slow_down=0.2, expired_until=time.monotonic() + 20)
    with proxy(server, weather) as port:
        report = scored(address(port), tmp_path / "out", predictor, give_up_after_s=60)
    assert report.rows == NUM_OBJECTS
    assert report.errors == {"not_an_image": 2}
