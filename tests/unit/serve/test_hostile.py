"""Hostile bodies and connections against the application on a real socket."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fer_ray.serve import protocol
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Slot
from fer_ray.serve.limits import Limits
from tests.hostile_bodies import Hostile, hostile_requests
from tests.serving import assert_problem, faces, listening

BODY_S = 0.6
HEAD_S = 0.8
ANSWER_S = 10.0
LIMIT_S = BODY_S + ANSWER_S


@pytest.fixture(scope="module")
def url(slot: Slot) -> Iterator[str]:
    limits = Limits(body_s=BODY_S, answer_s=ANSWER_S, head_s=HEAD_S)
    with listening(build_app(slot, Surroundings(limits)), limits) as address:
        yield address


def resident_bytes() -> int:
    """Of this process, in which the server runs too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_each_gets_its_problem_and_nobody_else_notices(url: str) -> None:
    requests = hostile_requests()
    assert len(requests) >= 200
    good = faces(1, "JPEG")[0]
    stop = threading.Event()
    latencies: list[float] = []

    def ask_beside() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.is_set():
                began = time.monotonic()
                response = client.post("/v1/predict", content=good)
                assert response.status_code == 200
                latencies.append(time.monotonic() - began)
                time.sleep(0.01)

    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    documented = {path: methods["post"]["responses"] for path, methods in paths.items()
                  if "post" in methods}  # fmt: skip

    def send(client: httpx.Client, hostile: Hostile) -> str:
        began = time.monotonic()
        headers = {"content-type": hostile.media_type}
        response = client.post(hostile.path, content=hostile.body, headers=headers)
        seconds = time.monotonic() - began
        if response.status_code not in hostile.statuses:
            return f"{hostile.name}: {response.status_code} {response.text[:200]}"
        assert str(response.status_code) in documented[hostile.path.replace("tiny", "{name}")]
        if response.status_code != 200:
            document = response.json()
            document.pop("error", None)
            protocol.Problem.model_validate(document)
            assert "Traceback" not in response.text
        return f"{hostile.name}: {seconds:.1f} s" if seconds > LIMIT_S else ""

    with ThreadPoolExecutor(5) as pool, httpx.Client(base_url=url, timeout=60) as client:
        send(client, requests[0])
        before = resident_bytes()
        beside = pool.submit(ask_beside)
        faults = list(pool.map(lambda hostile: send(client, hostile), requests))
        gc.collect()
        after_first = resident_bytes()
        faults += pool.map(lambda hostile: send(client, hostile), requests)
        stop.set()
        beside.result()
    assert [fault for fault in faults if fault] == []
    assert len(latencies) >= 10
    assert sorted(latencies)[len(latencies) // 2] < 1.0
    assert max(latencies) < 5.0  # a forward pass of others at most, even on a busy machine
    del requests, faults
    gc.collect()
    assert after_first - before < 300e6  # what the allocator keeps of the largest
    assert resident_bytes() - after_first < 60e6  # and no more of it the second time


# --- connections ----------------------------------------------------------------------------------


def raw(url: str, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are; what comes back until the server hangs up or is silent for long."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause_s)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
                if b"}" in answer:
                    break
        except OSError:
            pass
    return answer


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_a_body_shorter_than_it_said_is_waited_for_only_so_long(url: str) -> None:
    began = time.monotonic()
    answer = raw(url, HEAD + b"Content-Length: 1000\r\n\r\nabc")
    assert status_of(answer) == 408
    assert b"/problems/body-too-slow" in answer
    assert time.monotonic() - began < BODY_S + 5


def test_a_body_that_trickles_is_cut_off(url: str) -> None:
    pieces = [HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 12]
    assert status_of(raw(url, *pieces, pause_s=0.1)) == 408


def test_chunks_without_end(url: str) -> None:
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = raw(url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 400)
    assert status_of(answer) in (413, 0)  # 0: it hung up while we still sent
    silent = raw(url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    assert status_of(silent) == 408


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"X: " + b"y" * 200_000 + b"\r\n",
        b"\x00\xff: y\r\n",
    ],
)
def test_heads_that_make_no_sense(url: str, head: bytes) -> None:
    answer = raw(url, HEAD + head + b"\r\n", b"hello")
    assert status_of(answer) in (0, 400, 408, 413, 422, 431)
    assert b"Traceback" not in answer
    assert httpx.get(f"{url}/readyz").status_code == 200


def until_it_hangs_up(
    url: str, first: bytes, drop: bytes, *, every_s: float
) -> tuple[bytes, float]:
    """Send `first`, then `drop` again and again; what came back, and seconds until the end."""
    host, port = url.removeprefix("http://").split(":")
    answer, began = b"", time.monotonic()
    with socket.create_connection((host, int(port)), timeout=every_s) as connection:
        connection.sendall(first)
        while time.monotonic() < began + LIMIT_S:
            try:
                if drop:
                    connection.sendall(drop)
                chunk = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not chunk:
                break
            answer += chunk
    return answer, time.monotonic() - began


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("first", "drop", "statuses"),
    [
        (b"", b"", []),
        (b"", b"\r\n", []),
        (b"GET", b"", [408]),
        (GET + b"X: ", b"y", [408]),
        (GET, b"X: y\r\n", [408]),
        (GET + b"\r\n" + GET, b"X: y\r\n", [200, 408]),
        (GET + b"Content-Length: 10000\r\n\r\n", b"z", [200]),
    ],
    ids=[
        "silent",
        "empty lines",
        "three letters",
        "a byte",
        "a header",
        "second head",
        "late body",
    ],
)
def test_a_head_that_trickles_is_cut_off(
    url: str, first: bytes, drop: bytes, statuses: list[int]
) -> None:
    answer, seconds = until_it_hangs_up(url, first, drop, every_s=0.05)
    found = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert found == statuses
    assert (b"/problems/head-too-slow" in answer) == (408 in statuses)
    assert HEAD_S * 0.9 < seconds < HEAD_S + 5


def test_slow_heads_take_no_slot_and_hinder_nobody(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(300):  # more than the requests that are taken at once
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(HEAD)
        began = time.monotonic()
        assert httpx.post(f"{url}/v1/predict", content=faces(1)[0]).status_code == 200
        page = httpx.get(f"{url}/metrics").text
        assert time.monotonic() - began < 5
        assert 'fer_ray_requests_in_work{replica="0"} 0.0' in page


def test_a_head_without_end(url: str) -> None:
    answer = raw(url, HEAD + b"X: ", *[b"y" * 10_000] * 20)
    assert status_of(answer) in (431, 0)  # 0: it hung up while we still sent
    assert status_of(raw(url, HEAD + b"X: " + b"y" * 70_000)) == 431


def test_what_is_no_http_gets_a_problem(url: str) -> None:
    answer = raw(url, b"\x16\x03\x01 hello\r\n\r\n")
    assert status_of(answer) == 400
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = protocol.Problem.model_validate_json(body)
    assert problem.type == "/problems/invalid-http"
    assert f"x-request-id: {problem.request_id}".encode() in head


def test_a_connection_is_kept_between_requests(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for _ in range(2):
            response = client.get("/healthz")
            assert response.status_code == 200
            stream = response.extensions["network_stream"]
            port = stream.get_extra_info("client_addr")[1]
            time.sleep(1.5 * HEAD_S)  # idle: uvicorn's own time, 5 s here, not that of a head
            again = client.get("/healthz").extensions["network_stream"]
            assert again.get_extra_info("client_addr")[1] == port


def test_a_client_that_leaves_holds_nothing(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    for _ in range(50):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(5000))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        page = httpx.get(f"{url}/metrics").text
        if 'fer_ray_requests_in_work{replica="0"} 0.0' in page:
            break
        time.sleep(0.05)
    else:
        pytest.fail("requests of clients that left are still in work")


def test_a_declared_length_is_refused_before_it_is_sent(url: str) -> None:
    answer = raw(url, HEAD + b"Content-Length: 10000001\r\n\r\n")
    assert status_of(answer) == 413


def test_an_answer_that_takes_too_long(slot: Slot) -> None:
    app = build_app(slot, Surroundings(Limits(answer_s=0.0)))
    with listening(app) as address:
        response = httpx.post(f"{address}/v1/predict", content=faces(1)[0])
        assert_problem(response, "timed-out")
        assert response.headers["retry-after"] == "1"
