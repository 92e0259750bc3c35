"""The verbs that answer over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.bundle.load import Bundle
    from fer_ray.serve.endpoint import Endpoint


def endpoint(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    max_replicas: int | None = None,
    high_throughput: bool = False,
    precision: str = "auto",
    runtime: str = "auto",
    num_threads: int | None = None,
    api_keys: str | Path | None = None,
    page: bool = True,
    notice: str | None = None,
    faces: str = "none",
    access_log: str | Path | None = None,
    tls_certificate: str | Path | None = None,
    tls_key: str | Path | None = None,
    allow_open: bool = False,
) -> Endpoint:
    """Check where and how to serve, before anything is started.

    Args:
        host: where to listen; beyond loopback with `api_keys`, or `allow_open`.
        port: of that host.
        replicas: processes with the model.
        max_replicas: where their number shall follow the load; None keeps it.
        high_throughput: HAProxy before the replicas.
        precision: `auto`, `fp32` or `bf16`.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`; each replica chooses for itself.
        num_threads: of torch in each replica; all cores, shared out, where it is None.
        api_keys: file of key hashes; None lets everyone in.
        page: whether `GET /` is the page for people.
        notice: what that page says it is and is not; None is the usual text.
        faces: detector that requests may ask for: `none`, `haar` or `yunet:PATH`.
        access_log: file, one JSON line a request.
        tls_certificate: PEM file with the chain; None is plain HTTP.
        tls_key: PEM file.
        allow_open: let other machines in, without a key.

    Raises:
        UserError: a value, a file, the host or the port is wrong.
    """
    from fer_ray.serve.endpoint import Endpoint, check_endpoint
    from fer_ray.serve.settings import DEFAULT_NOTICE, Settings

    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision is auto, fp32 or bf16, but got {precision!r}")
    most = max_replicas if max_replicas is not None else replicas
    threads = (os.cpu_count() or 1) // max(1, most) if num_threads is None else num_threads
    if num_threads is not None and num_threads < 1:
        raise UserError(f"threads must be at least 1, but got {num_threads}")
    settings = Settings(
        precision=precision,
        runtime=runtime,
        num_threads=max(1, threads),
        api_keys=_absolute(api_keys),
        has_page=page,
        notice=DEFAULT_NOTICE if notice is None else notice,
        faces=faces,
        access_log=_absolute(access_log),
    )
    certificate, key = _absolute(tls_certificate), _absolute(tls_key)
    asked = Endpoint(host, port, replicas, most, high_throughput, certificate, key, settings)
    return check_endpoint(asked, allow_open=allow_open)


def _absolute(path: str | Path | None) -> Path | None:
    return Path(path).absolute() if path is not None else None


def serve(
    bundle: Bundle, endpoint: Endpoint, *, on_ready: Callable[[], None] | None = None
) -> None:
    """Answer over HTTP on Ray Serve until SIGTERM; call it from the main thread.

    Args:
        bundle: checked; see `load_bundle`.
        endpoint: where and how; see `endpoint`.
        on_ready: told once the endpoint answers.

    Raises:
        FerRayError: Ray or a replica did not start.
        KeyboardInterrupt: Ctrl-C, after everything was shut down in order.
    """
    from fer_ray.serve.start import serve_until_stopped

    serve_until_stopped(bundle, endpoint, on_ready or (lambda: None))


def update(bundle: str | None, *, port: int = 8000) -> str:
    """Put another bundle behind the `fer-ray serve` of this user and machine, without a gap.

    Args:
        bundle: a bundle's or run's directory; None is the shipped model.
        port: of the endpoint.

    Returns:
        the new bundle's title.

    Raises:
        UserError: no such endpoint.
        BundleError: the bundle is refused; the former one serves on.
        FerRayError: the swap failed; the former one serves on.
    """
    from fer_ray.serve.control import request_update

    return request_update(port, str(Path(bundle).absolute()) if bundle is not None else None)
