"""How `fer-ray serve` behaves over time: updates under load, memory, overload, a killed replica.

    python benchmarks/serve_soak.py                       # about two minutes
    python benchmarks/serve_soak.py --minutes 10 --requests 200000

Stages, each on one `fer-ray serve` in direct mode, load from this process (open loop, Poisson):

    capacity    closed loop with 64 connections
    half        half of capacity for --minutes, with a bundle update in every quarter: no refusal
    memory      the server's memory after a tenth of --requests and after all of them
    overload    twice capacity for --overload-s: goodput, the 503s' p99, memory, and recovery;
                once with single images, once with batches of 32, where this process has little
                to do (`late_p99_ms` says how late it came to send what was due)
    killed      the replica is killed: how long until it answers again, and our client's retries

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from serve import faces, family_of, load, one_request, pss_bytes, requests_of, served

from fer_ray.serve.client import Client
from fer_ray.serve.control import request_update

CONNECT_ERRORS = (OSError, asyncio.IncompleteReadError)


class OpenLoop:
    """Requests at random moments, whether or not the former ones are answered.

    Args:
        port: of the endpoint.
        requests: to send in turn.
        rate: requests a second on average.
    """

    def __init__(self, port: int, requests: list[bytes], rate: float) -> None:
        self._port = port
        self._requests = requests
        self._rate = rate
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.outcomes: list[tuple[float, float, int]] = []
        """(when asked, seconds, status) each; status 0 is a broken connection."""
        self._late_s: list[float] = []

    async def run(self, seconds: float) -> None:
        """Send for so long, then wait for what is in work."""
        rng = random.Random(0)
        tasks: set[asyncio.Task[None]] = set()
        next_s = began = time.perf_counter()
        while next_s < began + seconds:
            next_s += rng.expovariate(self._rate)
            await asyncio.sleep(max(0.0, next_s - time.perf_counter()))
            request = self._requests[len(self._late_s) % len(self._requests)]
            task = asyncio.create_task(self._one(request, next_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    async def _one(self, request: bytes, due: float) -> None:
        asked = time.perf_counter()
        self._late_s.append(asked - due)
        status = 0
        with contextlib.suppress(*CONNECT_ERRORS):
            pair = self._idle.pop() if self._idle else await self._connect()
            status = await one_request(*pair, request)
            self._idle.append(pair)
        self.outcomes.append((asked, time.perf_counter() - asked, status))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def summary(self) -> dict[str, Any]:
        statuses: dict[int, int] = {}
        for _, _, status in self.outcomes:
            statuses[status] = statuses.get(status, 0) + 1
        good = [seconds for _, seconds, status in self.outcomes if status == 200]
        refused = [seconds for _, seconds, status in self.outcomes if status == 503]
        span = max(asked + seconds for asked, seconds, _ in self.outcomes) - self.outcomes[0][0]
        return {
            "rate": round(self._rate, 1),
            "statuses": statuses,
            "good_per_s": round(len(good) / span, 1),
            "p50_ms": _quantile_ms(good, 0.5),
            "p99_ms": _quantile_ms(good, 0.99),
            "refused_p99_ms": _quantile_ms(refused, 0.99),
            "late_p99_ms": _quantile_ms(self._late_s, 0.99),
        }


def _quantile_ms(seconds: list[float], q: float) -> float | None:
    return round(1000 * float(np.quantile(seconds, q)), 1) if seconds else None


def own_replicas() -> list[int]:
    """Serve's replicas below this process; of nobody else's endpoint."""
    found = []
    for pid in family_of(os.getpid()):
        with contextlib.suppress(OSError):
            if b"ray::ServeReplica" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


async def half_of_capacity(
    port: int, requests: list[bytes], rate: float, seconds: float, bundles: list[str | None]
) -> dict[str, Any]:
    """Open loop with an update in every quarter."""
    loop = OpenLoop(port, requests, rate)
    running = asyncio.create_task(loop.run(seconds))
    updates = []
    for number in range(4):
        await asyncio.sleep(seconds / 5)
        began = time.perf_counter()
        await asyncio.to_thread(request_update, port, bundles[number % len(bundles)])
        updates.append(round(time.perf_counter() - began, 2))
    await running
    return {**loop.summary(), "updates_s": updates}


async def overload(port: int, requests: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """Twice what it can; then how soon a lone request is as quick as before."""
    loop = OpenLoop(port, requests, rate)
    await loop.run(seconds)
    began = time.perf_counter()
    after = await load(port, requests, 1, 5.0)
    return {**loop.summary(), "c1_after": after, "took_s": round(time.perf_counter() - began, 1)}


def overload_batches(port: int, files: list[bytes], seconds: float) -> dict[str, Any]:
    """The same with 32 images a request; the last batch of the list may be smaller."""
    requests = requests_of("batch", files, "127.0.0.1")
    capacity = float(asyncio.run(load(port, requests, 8, 5.0))["per_s"])
    return {
        "capacity_per_s": capacity,
        **asyncio.run(overload(port, requests, 2 * capacity, seconds)),
        "memory_mb": round(sum(pss_bytes(pid) for pid in own_replicas()) / 1e6, 1),
    }


def killed(port: int, file: bytes) -> dict[str, Any]:
    """Kill the replica; our client's own retries until it answers again."""
    with Client(f"http://127.0.0.1:{port}", attempts=30) as client:
        client.predict(file)
        (pid,) = own_replicas()
        os.kill(pid, signal.SIGKILL)
        began = time.perf_counter()
        client.predict(file)
        return {"answered_after_s": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--overload-s", type=float, default=10.0)
    parser.add_argument("--bundle", help="another one, to swap with the shipped model")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    files = faces(128)
    requests = requests_of("direct", files, "127.0.0.1")
    bundles = [options.bundle, None] if options.bundle else [None]
    results: dict[str, Any] = {}
    with served("direct", options.precision, os.cpu_count() or 1) as (port, facts):
        closed = asyncio.run(load(port, requests, 64, 5.0))
        capacity = float(closed["per_s"])
        results["capacity_per_s"] = capacity
        print("capacity", closed, flush=True)
        seconds = 60 * options.minutes
        half = half_of_capacity(port, requests, capacity / 2, seconds, bundles)
        results["half"] = asyncio.run(half)
        print("half", results["half"], flush=True)
        memory = []
        for share in (0.1, 0.9):
            asyncio.run(load(port, requests, 64, share * options.requests / capacity))
            memory.append(round(sum(pss_bytes(pid) for pid in own_replicas()) / 1e6, 1))
        results["memory_mb"] = memory
        print("memory", memory, flush=True)
        results["overload"] = asyncio.run(
            overload(port, requests, 2 * capacity, options.overload_s)
        )
        results["overload"]["memory_mb"] = round(
            sum(pss_bytes(pid) for pid in own_replicas()) / 1e6, 1
        )
        print("overload", results["overload"], flush=True)
        results["overload_batches"] = overload_batches(port, files, options.overload_s)
        print("overload of batches", results["overload_batches"], flush=True)
        results["killed"] = killed(port, files[0])
        print("killed", results["killed"], flush=True)
        results["start"] = facts
    print(json.dumps({"benchmark": "serve_soak", "cores": os.cpu_count(), "results": results}))


if __name__ == "__main__":
    main()
