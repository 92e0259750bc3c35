"""`fer-ray serve` on Ray: start, wait until it answers, stop in order.

Three ways from the socket to the model:

    direct    one replica, which listens itself: no proxy between; the default for one replica
    haproxy   HAProxy spreads the requests over replicas that listen themselves (--high-throughput)
    proxy     Serve's own proxy hands the requests on to the replicas; works everywhere, slowest
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from fer_ray.bundle.load import Bundle, find_bundle, load_bundle
from fer_ray.errors import FerRayError, UserError
from fer_ray.serve import haproxy
from fer_ray.serve.control import ControlSocket
from fer_ray.serve.endpoint import Endpoint, free_port

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

READY_TIMEOUT_S = 60.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Serve's own logging; the access log is ours."""

OBJECT_STORE_BYTES = 100 * 1024 * 1024
"""Requests do not pass through it; a little above the least that Ray takes."""


class _StoppedError(BaseException):
    """SIGTERM came; not an Exception, so that nobody swallows it on the way up."""


def serve_until_stopped(bundle: Bundle, endpoint: Endpoint, on_ready: Callable[[], None]) -> None:
    """Serve a checked bundle until SIGTERM, which returns, or Ctrl-C, which raises.

    Args:
        bundle: checked; each replica loads and checks it again.
        endpoint: checked.
        on_ready: called once `/readyz` answers.

    Raises:
        FerRayError: it did not start.
        KeyboardInterrupt: after everything was shut down in order.
    """
    with contextlib.ExitStack() as stack:
        os.environ.update(environment(endpoint))
        if endpoint.mode == "haproxy":
            os.environ.update(stack.enter_context(haproxy.prepared()))
        _serve(bundle, endpoint, on_ready)


def _serve(bundle: Bundle, endpoint: Endpoint, on_ready: Callable[[], None]) -> None:
    import ray

    if ray.is_initialized():
        raise UserError("Ray is already running in this process", "Call ray.shutdown() first.")
    results = sys.stdout
    # Ray prints what happens to its processes on stdout, which is for results.
    with _sigterm_raises(), contextlib.redirect_stdout(sys.stderr):
        try:
            _start_ray(endpoint)
            signal.signal(signal.SIGTERM, _stop)  # Ray has put its own in place
            running = Running(endpoint, bundle)
            wait_until_ready(endpoint.url)
            with contextlib.redirect_stdout(results):
                on_ready()
            with contextlib.closing(ControlSocket(endpoint.port, running.update)):
                threading.Event().wait()
        except (_StoppedError, SystemExit):  # the latter from Ray's handler, while it starts
            pass
        finally:
            _shut_down()


def environment(endpoint: Endpoint) -> dict[str, str]:
    """Variables that Ray reads on import, in this process and in all that it starts."""
    common = common_environment(endpoint)
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


def common_environment(endpoint: Endpoint) -> dict[str, str]:
    """Variables of every mode."""
    return {
        # As many as torch is told in the replica: where they differ, 40 ms a request were measured.
        "OMP_NUM_THREADS": str(endpoint.settings.num_threads),
        "RAY_COLOR_PREFIX": "0",
        "RAY_AUTH_MODE": "token",  # Ray's own ports listen on all interfaces
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's own metrics servers would listen on all interfaces. No port is below 0: they fail to
        # start, which Ray notes in its log and goes on.
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "fer_ray.serve.ray_sockets:outermost",
    }


def _start_ray(endpoint: Endpoint) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=endpoint.max_replicas + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


class Running:
    """The deployed application, and the one way to change its bundle.

    Args:
        endpoint: checked.
        bundle: checked.

    Raises:
        FerRayError: the replicas did not start.
    """

    def __init__(self, endpoint: Endpoint, bundle: Bundle) -> None:
        self._endpoint = endpoint
        self._bundle = bundle
        # In direct mode Serve's proxy starts all the same: out of the way, on loopback.
        proxy_port = free_port("127.0.0.1") if endpoint.is_direct else endpoint.port
        start_serve(endpoint, proxy_port)
        self._handle = deploy(endpoint, bundle)
        # For the control thread, which has no event loop.
        self._handle._init(_run_router_in_separate_loop=True)  # type: ignore[no-untyped-call]

    def update(self, place: str | None) -> str:
        """Serve another bundle; the old one answers until the new one does.

        Args:
            place: a bundle's or run's directory, absolute; None is the shipped model.

        Returns:
            the new bundle's title.

        Raises:
            BundleError: it is refused here, before any replica hears of it.
            FerRayError: a replica refused it; all went back to the former one.
        """
        bundle = load_bundle(find_bundle(place))
        deploy(self._endpoint, bundle)
        faults = self._faults(bundle.id)
        if faults:
            deploy(self._endpoint, self._bundle)
            raise FerRayError(f"a replica refused the bundle: {faults[0]}")
        self._bundle = bundle
        return bundle.title

    def _faults(self, bundle_id: str) -> list[str]:
        found = self._handle.broadcast("loaded").results()
        return [fault or f"it serves {id_[:12]}" for id_, fault in found if id_ != bundle_id]


def start_serve(endpoint: Endpoint, proxy_port: int) -> None:
    """Start Serve on the running Ray.

    Args:
        endpoint: checked.
        proxy_port: of Serve's proxy, or of HAProxy.

    Raises:
        FerRayError: a proxy did not start.
    """
    import ray
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {
        "host": "127.0.0.1" if endpoint.is_direct else endpoint.host,
        "port": proxy_port,
    }
    if endpoint.tls_certificate is not None and not endpoint.is_direct:
        options["ssl_keyfile"] = str(endpoint.tls_key)
        options["ssl_certfile"] = str(endpoint.tls_certificate)
    try:
        serve.start(proxy_location="HeadOnly", http_options=options, logging_config=dict(QUIET))
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise FerRayError(f"Serve did not start: {cause_of(str(error))}") from error


def deploy(endpoint: Endpoint, bundle: Bundle) -> DeploymentHandle[Any]:
    """Start the replicas, or tell those that run of another bundle; returns when they are ready.

    Args:
        endpoint: checked.
        bundle: each replica loads and checks it again, also one that is started later.

    Raises:
        FerRayError: they did not start.
    """
    from ray import serve

    from fer_ray.serve.deployment import NAME, application

    try:
        return serve.run(
            application(
                endpoint.replica_settings,
                str(bundle.path.resolve()),  # a run's `best` may point elsewhere tomorrow
                num_replicas=endpoint.num_replicas,
                max_replicas=endpoint.max_replicas,
                num_gpus=gpus_of_each(endpoint.max_replicas),
            ),
            name=NAME,
            route_prefix="/",
            logging_config=dict(QUIET),
        )
    except RuntimeError as error:
        found = serve.status().applications.get(NAME)
        status = found.deployments[NAME].message if found else str(error)
        raise FerRayError(f"the replicas did not start: {cause_of(status)}") from error


def gpus_of_each(num_replicas: int) -> float:
    """Ray's share of a GPU for each replica; 0 where there is none."""
    return 1 / num_replicas if torch.cuda.is_available() else 0.0


def cause_of(status: str) -> str:
    """The error in what Serve says of a failure: the last of the traceback; or HAProxy's alert."""
    alerts = re.findall(r"^\[ALERT\].*? : (.*)$", status, flags=re.MULTILINE)
    if alerts:
        return f"HAProxy: {alerts[0]}"
    found = re.findall(r"^(?:\w+\.)*(\w*Error\b.*)$", status, flags=re.MULTILINE)
    return str(found[-1]) if found else status.strip()[-500:]


def wait_until_ready(url: str) -> None:
    """Return when `/readyz` answers 200.

    Raises:
        FerRayError: not within `READY_TIMEOUT_S`.
    """
    # Its own certificate need not be one that this machine trusts, nor name this address.
    context = ssl._create_unverified_context() if url.startswith("https") else None
    deadline = time.monotonic() + READY_TIMEOUT_S
    fault = "no answer"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5.0, context=context):
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
