"""Requests a second and latency of `fer-ray serve`, beside what one would write by hand.

All on loopback, on the same bundle and the same raw JPEG bodies, each in processes of its own:

    direct    fer-ray serve, one replica that listens itself (the default)
    haproxy   fer-ray serve --replicas 2 --high-throughput
    proxy     fer-ray serve --replicas 2
    bare      uvicorn + FastAPI on the same Predictor, no batching, no limits
    litserve  LitServe with batching (base64 JSON, as it wants it)

The load comes from a process of its own: one raw socket a connection, closed loop. The last line
is one JSON document.

    python benchmarks/serve.py --seconds 3 --modes direct,bare,litserve
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.serve.endpoint import free_port

CONCURRENCIES = (1, 8, 64)
BATCH_IMAGES = 32
READY_S = 90.0


# --- load: `serve.py load` in a process of its own ------------------------------------------------


def requests_of(mode: str, files: list[bytes], host: str) -> list[bytes]:
    """Whole HTTP requests, ready to send."""
    if mode == "litserve":
        bodies = [json.dumps({"image": base64.b64encode(file).decode()}).encode() for file in files]
        path, kind = "/predict", "application/json"
    elif mode == "batch":
        texts = [base64.b64encode(file).decode() for file in files]
        groups = [texts[i : i + BATCH_IMAGES] for i in range(0, len(texts), BATCH_IMAGES)]
        bodies = [json.dumps({"inputs": group}).encode() for group in groups]
        path, kind = "/v1/predict/batch", "application/json"
    else:
        bodies, path, kind = files, "/v1/predict", "image/jpeg"
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: "
    return [head.encode() + b"%d\r\n\r\n" % len(body) + body for body in bodies]


async def one_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> int:
    """Send, read the whole answer; its status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    start = lower.index(b"content-length:") + 15
    length = int(lower[start : lower.index(b"\r\n", start)])
    await reader.readexactly(length)
    return int(head[9:12])


async def load(
    port: int, requests: list[bytes], concurrency: int, seconds: float
) -> dict[str, Any]:
    """A closed loop of `concurrency` connections."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    deadline = time.perf_counter() + seconds

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while (began := time.perf_counter()) < deadline:
            status = await one_request(reader, writer, requests[turn % len(requests)])
            latencies.append(time.perf_counter() - began)
            statuses[status] = statuses.get(status, 0) + 1
            turn += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection(number) for number in range(concurrency)))
    elapsed = time.perf_counter() - began
    p50, p95, p99 = (round(1000 * float(np.quantile(latencies, q)), 2) for q in (0.5, 0.95, 0.99))
    if set(statuses) != {200}:
        raise SystemExit(f"not every answer was 200: {statuses}")
    return {
        "per_s": round(len(latencies) / elapsed, 1),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


def faces(count: int) -> list[bytes]:
    images, _ = draw_faces(count, seed=3)
    files = []
    for pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def run_load(mode: str, port: int, concurrency: int, seconds: float) -> dict[str, Any]:
    """`load` in another process."""
    words = [sys.executable, __file__, "load", mode, port, concurrency, seconds]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- servers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(mode: str, precision: str, threads: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """A server in a process of its own; its port, and what starting it took."""
    port = free_port("127.0.0.1")
    if mode in ("bare", "litserve"):
        rivals = str(Path(__file__).with_name("serve_rivals.py"))
        words = [sys.executable, rivals, mode, str(port), precision, str(threads)]
    else:
        words = [sys.executable, "-m", "fer_ray", "serve", "--port", str(port)]
        words += ["--precision", precision]
        if mode == "direct":
            words += ["--threads", str(threads)]
        else:
            words += ["--replicas", "2", *(["--high-throughput"] if mode == "haproxy" else [])]
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    path = "/health" if mode == "litserve" else "/readyz"
    facts: dict[str, Any] = {}
    try:
        while True:
            url = f"http://127.0.0.1:{port}{path}"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    break
            if process.poll() is not None or time.perf_counter() - began > READY_S:
                assert process.stderr is not None
                raise SystemExit(f"{mode} did not start: {process.stderr.read().decode()[-2000:]}")
            time.sleep(0.05)
        facts["ready_s"] = round(time.perf_counter() - began, 1)
        if mode not in ("bare", "litserve"):
            time.sleep(2)
            facts["idle_pss_mb"] = round(pss_bytes(process.pid) / 1e6)
        yield port, facts
    finally:
        began = time.perf_counter()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # LitServe leaves its workers behind
        facts["stop_s"] = round(time.perf_counter() - began, 1)


def family_of(root: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def pss_bytes(root: int) -> int:
    """Proportional memory of a process and all below it: shared pages are counted once."""
    total = 0
    for pid in family_of(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def score_rate(precision: str, threads: int, files: list[bytes]) -> float:
    """Images a second of `fer-ray score`'s own loop on the same files, without its start."""
    import tempfile

    from fer_ray import api
    from fer_ray.score.options import Effort

    predictor = api.load_predictor(precision=precision, num_threads=threads)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "images"
        folder.mkdir()
        for number in range(4096):
            (folder / f"{number}.jpg").write_bytes(files[number % len(files)])
        began = time.perf_counter()
        effort = Effort(engine="local", num_threads=threads)
        api.score([str(folder)], Path(directory) / "out", predictor, effort=effort)
        return 4096 / (time.perf_counter() - began)


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "load":
        mode, port, concurrency, seconds = sys.argv[2:]
        requests = requests_of(mode, faces(128), f"127.0.0.1:{port}")
        asyncio.run(load(int(port), requests, int(concurrency), 0.5))  # warm up
        found = asyncio.run(load(int(port), requests, int(concurrency), float(seconds)))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", default="direct,bare,litserve,haproxy,proxy")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-score", action="store_true", help="leave out score's rate")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for mode in options.modes.split(","):
        with served(mode, options.precision, options.threads) as (port, facts):
            rows: dict[str, Any] = {}
            for concurrency in CONCURRENCIES:
                runs = [
                    run_load(mode, port, concurrency, options.seconds)
                    for _ in range(options.repeats)
                ]
                runs.sort(key=lambda run: float(run["per_s"]))
                rows[f"c{concurrency}"] = runs[len(runs) // 2]
                print(mode, concurrency, rows[f"c{concurrency}"], flush=True)
            if mode == "direct":
                found = run_load("batch", port, 2, options.seconds)
                rows["batch_images_per_s"] = round(BATCH_IMAGES * found["per_s"], 1)
                print(mode, "batch endpoint, images/s", rows["batch_images_per_s"], flush=True)
        results[mode] = {**rows, **facts}
        print(mode, facts, flush=True)
    if not options.no_score:
        results["score_images_per_s"] = round(
            score_rate(options.precision, options.threads, faces(128)), 1
        )
    print(
        json.dumps(
            {
                "benchmark": "serve",
                "cores": os.cpu_count(),
                "seconds": options.seconds,
                "repeats": options.repeats,
                "precision": options.precision,
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    main()
