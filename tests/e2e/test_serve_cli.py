"""`fer-ray serve` as its user runs it: a process, a port, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.endpoint import free_port
from tests.bundles import tiny_bundle
from tests.serving import (
    assert_envelope,
    assert_problem,
    assert_same_scores,
    expected_scores,
    faces,
)

COMMAND = [sys.executable, "-c", "from fer_ray.cli.main import main; main()", "serve"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("serve") / "tiny")


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    """What it prints first; fails with what it said on stderr if it ends instead."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"ended with {process.wait()}: {process.stderr.read()}")
    return line


def test_serves_until_sigterm(bundle: Path) -> None:
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    predictor = Predictor(load_bundle(bundle), "fp32")
    face = faces(1, "JPEG")[0]
    words = ("--bundle", bundle, "--port", port, "--precision", "fp32", "--threads", 1)
    with started(*words) as process:
        assert process.stdout is not None
        assert first_line(process) == f"ready: {url}/v1/predict\n"
        headers = {"content-type": "image/jpeg", "x-request-id": "mine"}
        with httpx.Client(base_url=url) as client:
            response = client.post("/v1/predict", content=face, headers=headers)
            assert_same_scores(response.json(), expected_scores(predictor, face))
            assert response.headers["x-request-id"] == "mine"
            assert_envelope(response)
            missing = client.get("/nope")
            assert_problem(missing, "not-found")
            assert_envelope(missing)
            assert client.get("/readyz").status_code == 200
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)  # with a connection still open
            rest, talk = process.communicate(timeout=30)
    assert process.returncode == 0, talk
    assert rest == ""
    assert time.monotonic() - began < 15  # 3 to 4 s alone on two cores
    lines = talk.splitlines()
    assert lines[0].startswith("bundle: tiny (")
    assert lines[-1] == "stopped"
    assert len(lines) == 4, talk  # Ray says nothing in between


def test_port_in_use(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with started("--bundle", bundle, "--port", port) as process:
            out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    assert f"port {port} on 127.0.0.1 is in use" in err
    assert "--port" in err


def test_damaged_bundle_stops_before_ray_starts(tmp_path: Path) -> None:
    damaged = tiny_bundle(tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with started("--bundle", damaged, "--port", free_port("127.0.0.1")) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "model.safetensors" in err
    assert "Traceback" not in err
