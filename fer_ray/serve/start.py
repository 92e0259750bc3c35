"""`fer-ray serve` on Ray: start, wait until it answers, stop in order.

Two ways from the socket to the model:

    direct   one replica, which listens itself: no proxy between; the default for one replica
    proxy    Serve's proxy listens and spreads the requests over the replicas
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from types import FrameType

import torch

from fer_ray.bundle.load import Bundle
from fer_ray.errors import FerRayError, UserError
from fer_ray.serve.endpoint import Endpoint, ReplicaOptions, free_port

READY_TIMEOUT_S = 60.0
OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Requests do not pass through it; a little above the least that Ray takes."""


class _StoppedError(BaseException):
    """SIGTERM came; not an Exception, so that nobody swallows it on the way up."""


def serve_until_stopped(bundle: Bundle, endpoint: Endpoint, on_ready: Callable[[], None]) -> None:
    """Serve a checked bundle until SIGTERM, which returns, or Ctrl-C, which raises.

    Args:
        bundle: each replica loads and checks it again.
        endpoint: checked.
        on_ready: called once `/readyz` answers.

    Raises:
        FerRayError: it did not start.
        KeyboardInterrupt: after everything was shut down in order.
    """
    os.environ.update(environment(endpoint))
    import ray

    if ray.is_initialized():
        raise UserError("Ray is already running in this process", "Call ray.shutdown() first.")
    results = sys.stdout
    # Ray prints what happens to its processes on stdout, which is for results.
    with _sigterm_raises(), contextlib.redirect_stdout(sys.stderr):
        try:
            _start_ray(endpoint)
            signal.signal(signal.SIGTERM, _stop)  # Ray has put its own in place
            _deploy(bundle, endpoint)
            wait_until_ready(endpoint.url)
            with contextlib.redirect_stdout(results):
                on_ready()
            threading.Event().wait()
        except (_StoppedError, SystemExit):  # the latter from Ray's handler, while it starts
            pass
        finally:
            _shut_down()


def environment(endpoint: Endpoint) -> dict[str, str]:
    """Variables that Ray reads on import, in this process and in all that it starts."""
    common = {
        # As many as torch is told in the replica: where they differ, 40 ms a request were measured.
        "OMP_NUM_THREADS": str(endpoint.num_threads),
        "RAY_COLOR_PREFIX": "0",
        "RAY_AUTH_MODE": "token",  # Ray's own ports listen on all interfaces
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "fer_ray.serve.middleware:outermost",
    }
    if not endpoint.is_direct:
        return common
    return {
        **common,
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(endpoint.port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(endpoint.port + 1),
        # No balancer has to notice that a replica goes, and its successor needs the same port.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_PORT_QUARANTINE_S": "0",
    }


def _start_ray(endpoint: Endpoint) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=endpoint.num_replicas + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _deploy(bundle: Bundle, endpoint: Endpoint) -> None:
    # In direct mode Serve's proxy starts all the same: out of the way, on loopback.
    proxy_port = free_port(endpoint.host) if endpoint.is_direct else endpoint.port
    options = ReplicaOptions(
        bundle.path.resolve(),
        endpoint.precision,
        endpoint.num_threads,
        endpoint.is_direct,
        endpoint.runtime,
    )
    deploy(options, endpoint.host, proxy_port, endpoint.num_replicas)


def deploy(options: ReplicaOptions, host: str, proxy_port: int, num_replicas: int) -> None:
    """Start Serve on the running Ray, and the replicas on it.

    Raises:
        FerRayError: they did not start.
    """
    from ray import serve

    from fer_ray.serve.deployment import NAME, application

    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    num_gpus = 1 / num_replicas if torch.cuda.is_available() else 0.0
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": proxy_port},
            logging_config=quiet,
        )
        serve.run(
            application(options, num_replicas, num_gpus),
            name=NAME,
            route_prefix="/",
            logging_config=quiet,
        )
    except RuntimeError as error:
        found = serve.status().applications.get(NAME)
        status = found.deployments[NAME].message if found else str(error)
        raise FerRayError(f"the replicas did not start: {cause_of(status)}") from error


def cause_of(status: str) -> str:
    """The error in what Serve says of a deployment: the last of the replica's traceback."""
    found = re.findall(r"^(?:\w+\.)*(\w*Error\b.*)$", status, flags=re.MULTILINE)
    return str(found[-1]) if found else status.strip()[-500:]


def wait_until_ready(url: str) -> None:
    """Return when `/readyz` answers 200.

    Raises:
        FerRayError: not within `READY_TIMEOUT_S`.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    fault = "no answer"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5.0):
                return
        except (urllib.error.URLError, OSError) as error:
            fault = str(error)
        time.sleep(0.05)
    raise FerRayError(f"{url}/readyz did not answer in {READY_TIMEOUT_S:g} s: {fault}")


def _shut_down() -> None:
    """Serve first, so that requests in work are answered; then Ray."""
    import ray
    from ray import serve

    # Ray reports that its controller goes, as it should.
    with contextlib.redirect_stdout(io.StringIO()):
        if ray.is_initialized():
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: it shuts down now
    raise _StoppedError


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
