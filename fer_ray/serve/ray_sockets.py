"""The sockets that Ray Serve opens: their address, their port, and what they wait for.

Serve has no settings for these. A replica looks `start_asgi_http_server` up in its module, where it
is wrapped. A proxy has it pickled within its class, so there uvicorn's usual protocol is another.
"""

from __future__ import annotations

import functools
import socket as socketlib
from typing import Any

import uvicorn.config
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from fer_ray.serve.heads import bound_heads
from fer_ray.serve.limits import Limits
from fer_ray.serve.middleware import SafeHeaders
from fer_ray.serve.settings import Socket

_SOCKETS = 31
"""Beside Serve's own."""


def listen_at(socket: Socket, limits: Limits, overloaded: ASGIApp) -> None:
    """Let Serve's direct ingress bind the address that was asked for, and share its port.

    Args:
        socket: the address.
        limits: what is decided with a request's head.
        overloaded: answers what is too much.

    Serve takes one address for its proxy and its replicas, but only the replica should listen
    there. And Ray 2.60 binds without SO_REUSEPORT: after a restart on the same port that fails for
    the minute in which the kernel keeps closed connections, and Serve then blocks the port for
    good.
    """
    from ray.serve._private import http_util, replica

    start = http_util.start_asgi_http_server

    @functools.wraps(start)
    async def start_bounded(app: Any, http_options: Any, **kwargs: Any) -> Any:
        changed = {"host": socket.host}
        if socket.tls_certificate is not None:
            changed["ssl_certfile"] = str(socket.tls_certificate)
            changed["ssl_keyfile"] = str(socket.tls_key)
        options = http_options.model_copy(update=changed)
        task, server = await start(app, options, **{**kwargs, "enable_so_reuseport": True})
        # The task has not run yet: nothing waits between its creation and here.
        bound_heads(server.config, limits, overloaded)
        accept_many(server, socket.host, options.port)
        return task, server

    vars(replica)["start_asgi_http_server"] = start_bounded


def accept_many(server: uvicorn.Server, host: str, port: int) -> None:
    """Let a server that has not started yet listen with several sockets at one port.

    uvloop accepts one connection of a socket in each turn of its loop (libuv since 1.45). Turns of
    a busy replica are long: with one socket it accepted a hundred connections a second, the
    kernel's queue of 2,048 filled, and clients waited for the seconds of TCP's own retries. The
    kernel shares the connections out among the sockets.
    """
    start = server.startup

    async def startup(sockets: list[socketlib.socket] | None = None) -> None:
        more = [listening_socket(host, port) for _ in range(_SOCKETS)]
        await start(sockets=[*(sockets or []), *more])

    vars(server)["startup"] = startup


def listening_socket(host: str, port: int) -> socketlib.socket:
    """A socket bound to a port that others may be bound to as well."""
    family = socketlib.AF_INET6 if ":" in host else socketlib.AF_INET
    made = socketlib.socket(family, socketlib.SOCK_STREAM)
    made.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made


def outermost() -> list[Middleware]:
    """For Serve's `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, the one way that Ray leaves.

    Called before a proxy or a replica listens; a proxy is told no limits of ours but the usual.
    """
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "fer_ray.serve.heads:usual_heads"
    return [Middleware(SafeHeaders)]
