"""A Ray head as `ray start` makes it: processes of its own, a token, a dashboard on loopback."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_ray.serve.endpoint import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
UP_S = 90.0


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        address: HOST:PORT to join.
        dashboard: its URL.
        environment: of processes that may talk to it.
    """

    address: str
    dashboard: str
    environment: dict[str, str]

    def fer_ray(
        self, *words: str | Path, without: tuple[str, ...] = (), timeout_s: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line of fer-ray, as a user of this head would."""
        return subprocess.run(
            [sys.executable, "-m", "fer_ray", *map(str, words)],
            env={key: value for key, value in self.environment.items() if key not in without},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextlib.contextmanager
def head(num_cpus: int = 2) -> Iterator[Head]:
    """Start one, wait for its dashboard, and end its whole session."""
    folder = Path(tempfile.mkdtemp(prefix="fr-", dir="/tmp"))  # short: sockets lie in it
    ports = [free_port("127.0.0.1") for _ in range(6)]
    port, dashboard, client, agent, agent_grpc, metrics = ports
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
    }
    words = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={port}", f"--num-cpus={num_cpus}", "--num-gpus=0"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
        *(f"--metrics-export-port={metrics}", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--object-store-memory={200 * 1024 * 1024}", f"--temp-dir={folder}"),
    ]
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            words, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        _wait(url, environment["RAY_AUTH_TOKEN"], process, folder / "out")
        yield Head(f"127.0.0.1:{port}", url, environment)
    finally:
        process.terminate()  # --block ends what it started; Ray's reaper, where it is killed
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, token: str, process: subprocess.Popen[bytes], out: Path) -> None:
    request = urllib.request.Request(
        f"{url}/api/version", headers={"Authorization": f"Bearer {token}"}
    )
    until = time.monotonic() + UP_S
    while time.monotonic() < until:
        assert process.poll() is None, out.read_text()
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(request, timeout=5)
            return
        time.sleep(0.2)
    raise AssertionError(f"no dashboard: {out.read_text()}")
