"""`fer-ray serve` as its user runs it: a process, a port, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import BundleError
from fer_ray.serve.client import Client
from fer_ray.serve.control import request_update
from fer_ray.serve.endpoint import free_port
from fer_ray.serve.keys import add_key
from tests.bundles import tiny_bundle
from tests.photos import encoded, photo
from tests.processes import replicas_below
from tests.serving import (
    assert_envelope,
    assert_problem,
    assert_same_scores,
    expected_scores,
    faces,
)
from tests.sockets import listening_sockets

COMMAND = [sys.executable, "-c", "from fer_ray.cli.main import main; main()", "serve"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("serve") / "tiny")


@contextmanager
def started(*words: object, mark: str = "") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MARKED_BY_A_TEST": mark},
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
    words = ("--bundle", bundle, "--port", port, "--precision", "fp32", "--threads", 1,
             "--faces", "haar")  # fmt: skip
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
            with Client(url) as typed:
                assert len(typed.find_faces(encoded(photo((40, 80), (400, 80))))) == 2
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


def assert_only_loopback_speaks_http(mark: str) -> None:
    """Ray's RPC listens everywhere (docs/serve.md); nothing of HTTP may."""
    found = listening_sockets(mark)
    assert any(entry.is_loopback for entry in found)
    # Ray's two agents of a node, which no setting of Ray 2.60 moves.
    agents = ("ray/dashboard/agent.py", "DashboardAgent", "runtime_env/agent", "RuntimeEnvAgent")
    open_to_all = [
        entry
        for entry in found
        if not entry.is_loopback
        and not any(agent in entry.command for agent in agents)
        and entry.speaks_http()
    ]
    assert open_to_all == []


def test_an_update_under_load_loses_nothing_and_sigterm_drains(
    bundle: Path, tmp_path: Path
) -> None:
    port, mark = free_port("127.0.0.1"), uuid.uuid4().hex
    url = f"http://127.0.0.1:{port}"
    key = add_key(tmp_path / "keys", "alice")
    other = tiny_bundle(tmp_path / "other", seed=1)
    damaged = tiny_bundle(tmp_path / "damaged", seed=2)
    (damaged / "model.safetensors").write_bytes(b"x")
    words = ("--bundle", bundle, "--port", port, "--precision", "fp32", "--threads", 1,
             "--api-keys", tmp_path / "keys",
             "--access-log", tmp_path / "access.jsonl")  # fmt: skip
    face = faces(1, "JPEG")[0]
    stop = threading.Event()
    ids: list[str] = []

    def ask() -> None:
        with Client(url, key, attempts=1) as client:  # any refusal raises
            while not stop.is_set():
                ids.append(client.predict(face).model_id)

    with started(*words, mark=mark) as process:
        first_line(process)
        slow_head = socket.create_connection(("127.0.0.1", port), timeout=30)
        slow_head.sendall(b"GET / HTTP/1.1\r\nHost")
        assert_only_loopback_speaks_http(mark)
        assert httpx.get(f"{url}/v1/models").status_code == 401
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        title = request_update(port, str(other))
        with pytest.raises(BundleError, match=r"model\.safetensors"):
            request_update(port, str(damaged))
        stop.set()
        for thread in threads:
            thread.join()
        new_id = load_bundle(other).id
        assert new_id[:12] in title
        with Client(url, key) as client:
            assert client.models()[0]["id"] == new_id
        assert set(ids) == {load_bundle(bundle).id, new_id}
        assert len(ids) > 20
        metrics = httpx.get(f"{url}/metrics").text
        assert 'fer_ray_bundle_updates_total{outcome="ok",' in metrics
        with slow_head:
            assert b"/problems/head-too-slow" in slow_head.recv(65536)

        # One request in work while SIGTERM comes: the rest of its body arrives later.
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
            f"X-Request-ID: drained\r\nContent-Length: {len(face)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(head.encode() + face[:100])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.7)
            slow.sendall(face[100:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        _, talk = process.communicate(timeout=30)
    assert process.returncode == 0, talk
    lines = (tmp_path / "access.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert sum(entry["key"] == "alice" for entry in entries) > len(ids)
    drained = [entry for entry in entries if entry["request_id"] == "drained"]
    assert [entry["status"] for entry in drained] == [200]


@pytest.mark.long
@pytest.mark.parametrize("mode", [(), ("--replicas", 2), ("--replicas", 2, "--high-throughput")])
def test_a_killed_replica_costs_what_was_in_it_and_retries_answer(
    bundle: Path, mode: tuple[object, ...]
) -> None:
    port = free_port("127.0.0.1")
    face = faces(1, "JPEG")[0]
    stop = threading.Event()
    answered: list[float] = []
    faults: list[Exception] = []

    def ask() -> None:
        # Retries for about half a minute: a lone replica has to be started anew.
        with Client(f"http://127.0.0.1:{port}", attempts=40) as client:
            while not stop.is_set():
                try:
                    client.predict(face)
                except Exception as error:
                    faults.append(error)
                    return
                answered.append(time.monotonic())

    words = ("--bundle", bundle, "--port", port, "--precision", "fp32", "--threads", 1, *mode)
    with started(*words) as process:
        first_line(process)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        before = replicas_below(process.pid)
        assert len(before) == (2 if mode else 1)
        time.sleep(1)
        killed_at = time.monotonic()
        os.kill(before[0], signal.SIGKILL)
        deadline = killed_at + 60
        while time.monotonic() < deadline:
            now = replicas_below(process.pid)
            if len(now) == len(before) and before[0] not in now and answered[-1] > killed_at:
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"no new replica: {now}, {faults}")
        last = len(answered)
        while len(answered) < last + 20 and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
        assert faults == []
        assert len(answered) >= last + 20
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=40)
    assert process.returncode == 0, talk


@pytest.mark.long
@pytest.mark.parametrize("mode", [("--high-throughput",), ()])
def test_several_replicas(bundle: Path, tmp_path: Path, mode: tuple[str, ...]) -> None:
    port, mark = free_port("127.0.0.1"), uuid.uuid4().hex
    url = f"http://127.0.0.1:{port}"
    other = tiny_bundle(tmp_path / "other", seed=1)
    words = ("--bundle", bundle, "--port", port, "--precision", "fp32", "--replicas", 2, *mode)
    predictor = Predictor(load_bundle(other), "fp32")
    face = faces(1, "JPEG")[0]
    with started(*words, mark=mark) as process:
        first_line(process)
        slow_head = socket.create_connection(("127.0.0.1", port), timeout=30)
        slow_head.sendall(b"GET / HTTP/1.1\r\nHost")
        assert_only_loopback_speaks_http(mark)
        request_update(port, str(other))
        with httpx.Client(base_url=url, timeout=20) as client:
            for _ in range(10):
                response = client.post("/v1/predict", content=face)
                assert_same_scores(response.json(), expected_scores(predictor, face))
                assert_envelope(response)
            metrics = client.get("/metrics").text
        infos = [line for line in metrics.splitlines() if line.startswith("fer_ray_bundle_info")]
        with slow_head:  # each of the ways in has a time for a head
            answer = slow_head.recv(65536)
            assert answer[:12] in (b"", b"HTTP/1.1 408")  # HAProxy just hangs up
        assert len(infos) == 2
        assert all(predictor.bundle.id in line for line in infos)
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=40)
    assert process.returncode == 0, talk


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.long
def test_https(bundle: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port("127.0.0.1")
    words = ("--bundle", bundle, "--port", port, "--precision", "fp32", "--threads", 1,
             "--tls-certificate", certificate, "--tls-key", key)  # fmt: skip
    with started(*words) as process:
        assert first_line(process) == f"ready: https://127.0.0.1:{port}/v1/predict\n"
        context = ssl.create_default_context(cafile=str(certificate))
        response = httpx.get(f"https://127.0.0.1:{port}/readyz", verify=context)
        assert response.headers["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/readyz")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


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
