"""Where to serve, and what is refused before anything is started."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from fer_ray.errors import UserError

MAX_REPLICAS = 64
_BELOW_EPHEMERAL = range(20_000, 30_000)


@dataclass(frozen=True)
class Endpoint:
    """Where and how to serve.

    Attributes:
        host: numeric address of this machine.
        port: 1..65535.
        num_replicas: processes with the model.
        precision: `auto`, `fp32` or `bf16`.
        num_threads: of the network and of decoding, in each replica.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`.
    """

    host: str
    port: int
    num_replicas: int
    precision: str
    num_threads: int
    runtime: str = "auto"

    @property
    def is_direct(self) -> bool:
        """Whether the replica itself listens.

        Serve starts its proxy on the same address all the same: beyond loopback that would be a
        second open port, so there the proxy is the only one.
        """
        return self.num_replicas == 1 and ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """At which this machine reaches it."""
        any_address = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = any_address.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True)
class ReplicaOptions:
    """What a replica is made of.

    Attributes:
        bundle: its directory, absolute.
        precision: `auto`, `fp32` or `bf16`.
        num_threads: of the network and of decoding.
        shares_port: bind so that a successor can take over the port at once (direct ingress).
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`.
    """

    bundle: Path
    precision: str
    num_threads: int
    shares_port: bool
    runtime: str = "auto"


def check_endpoint(endpoint: Endpoint, *, allow_open: bool) -> Endpoint:
    """Refuse what cannot or should not be served.

    Args:
        endpoint: as asked for; its host may be a name.
        allow_open: other machines may reach it, although it has no authentication.

    Returns:
        with the host's address.

    Raises:
        UserError: the value, the rule and the remedy.
    """
    if not 1 <= endpoint.port <= 65535:
        raise UserError(f"port must lie in 1..65535, but got {endpoint.port}")
    if not 1 <= endpoint.num_replicas <= MAX_REPLICAS:
        raise UserError(f"replicas must lie in 1..{MAX_REPLICAS}, but got {endpoint.num_replicas}")
    if endpoint.num_threads < 1:
        raise UserError(f"threads must be at least 1, but got {endpoint.num_threads}")
    family, _, _, _, address = _resolve(endpoint)
    host = str(address[0])
    if not ipaddress.ip_address(host).is_loopback and not allow_open:
        raise UserError(
            f"host {endpoint.host} can be reached from other machines: not yet, API keys come in "
            "a later version",
            "Serve on 127.0.0.1 and put a reverse proxy that authenticates before it, or pass "
            "--insecure-no-auth to let everyone in.",
        )
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _port_error(endpoint, error) from error
    return replace(endpoint, host=host)


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
