"""Object storage in bad weather, at length: the rate under delays, and a minute of refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from tests.bundles import tiny_bundle
from tests.scoring import image_bytes, scored
from tests.weather import BUCKET, Weather, address, proxy

NUM_OBJECTS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """moto's S3 with a bucket of faces, two of them no images."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    for number in range(NUM_OBJECTS):
        data = image_bytes(number, "JPEG") if number % 150 else b"no image"
        client.put_object(Bucket=BUCKET, Key=f"{number % 3}/a b/{number:04d}.jpg", Body=data)
    client.put_object(Bucket=BUCKET, Key="notes.md", Body=b"words")
    yield host, port
    moto.stop()


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
