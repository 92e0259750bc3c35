"""The client against the real application, and against servers that misbehave."""

from __future__ import annotations

import runpy
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Slot
from fer_ray.serve.client import Answer, Client, Refusal, ServerRefusedError
from fer_ray.serve.keys import KeyBook, add_key
from tests.scripts import ROOT
from tests.serving import TOLERANCE, expected_scores, faces, listening


def test_answers(app: FastAPI, predictor: Predictor, tmp_path: Path) -> None:
    first, second = faces(2, "JPEG")
    path = tmp_path / "face.jpg"
    path.write_bytes(second)
    with listening(app) as url, Client(url) as client:
        answer = client.predict(first)
        two = client.predict(path, top_k=2)
        batch = client.predict_batch([first, b"rubbish", path])
        assert client.models()[0]["name"] == "tiny"
    expected = expected_scores(predictor, first)
    assert answer.label == max(expected, key=lambda name: expected[name])
    assert max(abs(answer.scores[name] - expected[name]) for name in expected) <= TOLERANCE
    assert answer.model_id == predictor.bundle.id
    assert len(two.scores) == 2
    assert isinstance(batch[0], Answer)
    assert isinstance(batch[1], Refusal)
    assert batch[1].problem["status"] == 422
    assert isinstance(batch[2], Answer)
    assert batch[2].label == two.label


def test_the_example_asks_and_tells(
    app: FastAPI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "face.jpg").write_bytes(faces(1, "JPEG")[0])
    (tmp_path / "words.jpg").write_bytes(b"rubbish")
    monkeypatch.chdir(tmp_path)
    with listening(app) as url:
        words = ["ask_endpoint.py", "face.jpg", "words.jpg", "--url", url]
        monkeypatch.setattr("sys.argv", words)
        runpy.run_path(str(ROOT / "examples" / "ask_endpoint.py"), run_name="__main__")
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 5
    assert told[3].split(": ")[1] == told[0].split()[0]
    assert told[4].startswith("words.jpg: ")


def test_refusals_are_not_retried(app: FastAPI) -> None:
    slept: list[float] = []
    with listening(app) as url, Client(url, sleep=slept.append) as client:
        with pytest.raises(ServerRefusedError, match="422 The image cannot be decoded") as caught:
            client.predict(b"rubbish")
        assert caught.value.name == "undecodable-image"
    assert slept == []


def test_the_key(slot: Slot, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "alice")
    app = build_app(slot, Surroundings(keys=KeyBook(tmp_path / "keys")))
    with listening(app) as url:
        with Client(url) as client, pytest.raises(ServerRefusedError, match="401"):
            client.models()
        with Client(url, key) as client:
            assert client.models()


@contextmanager
def scripted(*answers: bytes) -> Iterator[str]:
    """A server that gives these answers, one a connection; empty hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for answer in answers:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    thread.join(timeout=5)
    server.close()


def response(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


OK = response(200, b'{"models": []}')


def test_it_waits_as_long_as_it_is_asked_to() -> None:
    slept: list[float] = []
    busy = response(503, b"{}", "Retry-After: 7")
    with scripted(busy, b"", response(429, b"", "Retry-After: soon"), OK) as url:
        assert Client(url, sleep=slept.append).models() == []
    assert 7 <= slept[0] <= 7.25
    assert len(slept) == 3
    assert max(slept[1:]) < 1


def test_a_proxys_500_is_tried_again_and_a_500_of_ours_is_not() -> None:
    slept: list[float] = []
    with scripted(response(500, b"Internal Server Error"), OK) as url:
        assert Client(url, sleep=slept.append).models() == []
    assert len(slept) == 1
    own = response(500, b'{"type": "/problems/internal", "title": "The server failed"}')
    with scripted(own) as url, pytest.raises(ServerRefusedError, match="500 The server failed"):
        Client(url, sleep=slept.append).models()
    assert len(slept) == 1


def test_it_gives_up() -> None:
    slept: list[float] = []
    busy = response(503, b"no JSON", "Retry-After: 9999")
    with scripted(busy, busy) as url:
        client = Client(url, attempts=2, sleep=slept.append)
        with pytest.raises(ServerRefusedError, match="503"):
            client.models()
    assert len(slept) == 1
    assert slept[0] < 31
    with pytest.raises(ValueError, match="is wanted"):
        Client("127.0.0.1:8000")
