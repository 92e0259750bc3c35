"""Where to serve, and what is refused before anything is started."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from fer_ray.errors import UserError
from fer_ray.images.detect import build_detector, kind_of
from fer_ray.serve.keys import KeyBook
from fer_ray.serve.settings import Settings, Socket

MAX_REPLICAS = 64
_BELOW_EPHEMERAL = range(20_000, 30_000)


@dataclass(frozen=True)
class Endpoint:
    """Where and how to serve.

    Attributes:
        host: numeric address of this machine.
        port: 1..65535.
        num_replicas: processes with the model, at least.
        max_replicas: at most; above `num_replicas` their number follows the load.
        high_throughput: HAProxy before the replicas instead of Serve's own proxy.
        tls_certificate: PEM file with the chain; None is plain HTTP.
        tls_key: PEM file.
        settings: of each replica.
    """

    host: str
    port: int
    num_replicas: int
    max_replicas: int
    high_throughput: bool
    tls_certificate: Path | None
    tls_key: Path | None
    settings: Settings

    @property
    def mode(self) -> str:
        """Who listens: `direct` (the one replica itself), `haproxy`, or `proxy` (Serve's own)."""
        if self.high_throughput:
            return "haproxy"
        return "direct" if self.max_replicas == 1 else "proxy"

    @property
    def is_direct(self) -> bool:
        return self.mode == "direct"

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """At which this machine reaches it."""
        any_address = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = any_address.get(self.host, self.host)
        scheme = "https" if self.tls_certificate else "http"
        return (
            f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        )

    @property
    def replica_settings(self) -> Settings:
        """With the address at which a replica listens itself."""
        if self.is_direct:
            socket = Socket(
                host=self.host, tls_certificate=self.tls_certificate, tls_key=self.tls_key
            )
        elif self.mode == "haproxy":
            socket = Socket(host="127.0.0.1")  # HAProxy reaches it there
        else:
            return self.settings
        return self.settings.model_copy(update={"socket": socket})


def check_endpoint(endpoint: Endpoint, *, allow_open: bool) -> Endpoint:
    """Refuse what cannot or should not be served.

    Args:
        endpoint: as asked for; its host may be a name.
        allow_open: other machines may reach it without a key.

    Returns:
        with the host's address.

    Raises:
        UserError: the value, the rule and the remedy.
    """
    settings = endpoint.settings
    if not 1 <= endpoint.port <= 65535:
        raise UserError(f"port must lie in 1..65535, but got {endpoint.port}")
    if not 1 <= endpoint.num_replicas <= MAX_REPLICAS:
        raise UserError(f"replicas must lie in 1..{MAX_REPLICAS}, but got {endpoint.num_replicas}")
    if not endpoint.num_replicas <= endpoint.max_replicas <= MAX_REPLICAS:
        raise UserError(
            f"max-replicas must lie in {endpoint.num_replicas} (replicas)..{MAX_REPLICAS}, "
            f"but got {endpoint.max_replicas}"
        )
    _check_files(endpoint)
    family, _, _, _, address = _resolve(endpoint)
    checked = replace(endpoint, host=str(address[0]))
    if not checked.is_loopback and settings.api_keys is None and not allow_open:
        raise UserError(
            f"host {endpoint.host} can be reached from other machines, and no API key is wanted",
            "Pass --api-keys FILE (make one with `fer-ray serve-key`), or --insecure-no-auth to "
            "let everyone in.",
        )
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _port_error(endpoint, error) from error
    return replace(
        checked,
        settings=settings.model_copy(
            update={"guards_operations": settings.api_keys is not None and not checked.is_loopback}
        ),
    )


def _check_files(endpoint: Endpoint) -> None:
    """The key file, the detector and the certificate, before anything is started."""
    settings = endpoint.settings
    if settings.api_keys is not None:
        KeyBook(settings.api_keys)
    if kind_of(settings.faces) != "none":
        build_detector(settings.faces)  # says at once what is missing
    if settings.access_log is not None and not settings.access_log.parent.is_dir():
        raise UserError(f"access log {settings.access_log}: its directory is not there")
    if (endpoint.tls_certificate is None) != (endpoint.tls_key is None):
        raise UserError("--tls-certificate and --tls-key belong together")
    if endpoint.tls_certificate is None or endpoint.tls_key is None:
        return
    if endpoint.mode == "haproxy":
        raise UserError(
            "Serve's HAProxy speaks plain HTTP only",
            "Leave --high-throughput away, or end TLS in a balancer of your own before it.",
        )
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(endpoint.tls_certificate, endpoint.tls_key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise UserError(f"the TLS certificate or key cannot be used: {error}") from error


def _no_password() -> str:
    """Asked for by OpenSSL when the key is encrypted; a server has nobody to type it."""
    raise ValueError("the key is encrypted; only a key without a password can be used")


def free_port(host: str) -> int:
    """A port on which nothing listens, and which Ray's processes do not take while they start.

    They let the system choose among the ephemeral ports (32768 upwards on Linux, 49152 elsewhere);
    a port of that range can be gone before Serve listens on it.

    Raises:
        UserError: a hundred ports in a row are taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(100):
        port = secrets.choice(_BELOW_EPHEMERAL)
        with socket.socket(family, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise UserError(f"no free port on {host} in {_BELOW_EPHEMERAL}", "Choose one with --port.")


def _resolve(endpoint: Endpoint) -> tuple[int, int, int, str, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"host {endpoint.host!r} is not an address of this machine") from error
    # IPv4 first: `localhost` is often both.
    return min(found, key=lambda item: item[0] != socket.AF_INET)  # type: ignore[return-value]


def _port_error(endpoint: Endpoint, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"port {endpoint.port} on {endpoint.host} is in use",
            "Stop what listens there, or choose another with --port.",
        )
    if error.errno == errno.EACCES:
        return UserError(
            f"port {endpoint.port} is for privileged users",
            "Choose one above 1023 with --port.",
        )
    return UserError(f"cannot listen on {endpoint.host}:{endpoint.port}: {error.strerror}")
