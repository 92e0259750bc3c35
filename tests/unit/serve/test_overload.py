"""A replica that has enough to do says so at once, on a real socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.limits import Limits
from fer_ray.serve.measures import Measures
from tests.serving import assert_envelope, assert_problem, faces, listening

ROOM = 3


@pytest.fixture
def counted() -> Measures:
    return Measures()


@pytest.fixture
def url(predictor: Predictor, counted: Measures) -> Iterator[str]:
    """A server that has room for three requests."""
    limits = Limits(requests=ROOM)
    classifier = Classifier(predictor, num_threads=1)
    app = build_app(Slot(classifier), Surroundings(limits=limits, measures=counted))
    with listening(app, limits, counted) as address:
        yield address
    classifier.close()


def half_sent(url: str, image: bytes) -> socket.socket:
    """A request whose body is still on its way."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n"
    connection.sendall(head.encode() + image[:50])
    return connection


def test_what_is_too_much_is_refused_before_its_body_and_the_rest_goes_on(
    url: str, counted: Measures
) -> None:
    image = faces(1)[0]
    with httpx.Client(base_url=url, timeout=10) as client, ExitStack() as stack:
        waiting = [stack.enter_context(half_sent(url, image)) for _ in range(ROOM)]
        deadline = time.monotonic() + 10
        while next(iter(counted.in_work.collect())).samples[0].value < ROOM:
            time.sleep(0.01)
            assert time.monotonic() < deadline
        for path in ("/v1/predict", "/v1/predict/batch", "/"):
            refused = client.post(path, content=image)
            assert_problem(refused, "overloaded")
            assert_envelope(refused)
            assert refused.headers["retry-after"] == "1"
        for_v2 = client.post("/v2/models/tiny/infer", json={}).json()
        assert for_v2["error"] == for_v2["detail"]
        assert client.get("/readyz").status_code == 200, "a probe sees a live server"
        refused = client.post("/v1/predict", content=image, headers={"x-request-id": "mine"})
        assert refused.headers["x-request-id"] == "mine"
        # One that never ends its body holds nobody up.
        with half_sent(url, image) as unfinished:
            assert unfinished.recv(65536).startswith(b"HTTP/1.1 503")
        for connection in waiting:
            connection.sendall(image[50:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert client.post("/v1/predict", content=image).status_code == 200
    found = counted.requests.labels("other", "overloaded")._value.get()
    assert found == 6
