"""What the tests of the HTTP API share: images, calls and the form of a problem."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from fer_ray.bundle.predictor import Predictor
from fer_ray.data.faces import draw_faces
from fer_ray.serve.endpoint import free_port
from fer_ray.serve.heads import bound_heads
from fer_ray.serve.limits import Limits
from fer_ray.serve.measures import Measures
from fer_ray.serve.overload import overloaded
from fer_ray.serve.problems import MEDIA_TYPE, PROBLEMS

TOLERANCE = 1.0e-5


def faces(count: int, kind: str = "PNG") -> list[bytes]:
    """Files of different synthetic faces."""
    images, _ = draw_faces(count, seed=11)
    files = []
    for pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        files.append(file.getvalue())
    return files


def expected_scores(predictor: Predictor, file: bytes) -> dict[str, float]:
    """What `predict` and `score` say: the same Predictor, one image at a time."""
    pixels = np.stack([predictor.decode(file).pixels])
    probabilities = predictor.predict(pixels).probabilities[0]
    return dict(zip(predictor.class_names, map(float, probabilities), strict=True))


def assert_same_scores(answer: dict[str, Any], expected: dict[str, float]) -> None:
    """All classes, best first, within rounding."""
    found = {entry["label"]: entry["score"] for entry in answer["predictions"]}
    assert found.keys() == expected.keys()
    assert max(abs(found[label] - expected[label]) for label in expected) <= TOLERANCE
    scores = [entry["score"] for entry in answer["predictions"]]
    assert scores == sorted(scores, reverse=True)


def assert_problem(response: httpx.Response, name: str) -> dict[str, Any]:
    """An RFC 9457 problem of that type; returns it."""
    document: dict[str, Any] = response.json()
    assert document["type"] == f"/problems/{name}", document
    assert response.status_code == document["status"] == PROBLEMS[name].status
    assert response.headers["content-type"] == MEDIA_TYPE
    assert document.keys() == {"type", "title", "status", "detail", "request_id"}
    assert "Traceback" not in response.text
    assert document["request_id"] in response.headers.get_list("x-request-id")
    return document


def assert_envelope(response: httpx.Response) -> None:
    """Headers that every answer carries, once."""
    names = [name.lower() for name, _ in response.headers.multi_items()]
    assert names.count("x-request-id") == 1
    assert response.headers["x-content-type-options"] == "nosniff"


def call(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    """One request to the application, without a socket."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


@contextmanager
def listening(
    app: FastAPI, limits: Limits | None = None, measures: Measures | None = None
) -> Iterator[str]:
    """The application on a real socket, served by uvicorn as Ray's replicas do; its address."""
    port = free_port("127.0.0.1")
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="critical", lifespan="off")
    limits = limits or Limits()
    bound_heads(config, limits, overloaded(limits, measures or Measures(), None))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
