"""The sockets that Ray Serve opens: their address, their port, and what they wait for.

Serve has no settings for these, so `start_asgi_http_server` is wrapped where Serve looks it up.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from starlette.middleware import Middleware

from fer_ray.serve.heads import bound_heads
from fer_ray.serve.limits import Limits
from fer_ray.serve.middleware import SafeHeaders
from fer_ray.serve.settings import Socket


def listen_at(socket: Socket, limits: Limits) -> None:
    """Let Serve's direct ingress bind the address that was asked for, and share its port.

    Serve takes one address for its proxy and its replicas, but only the replica should listen
    there. And Ray 2.60 binds without SO_REUSEPORT: after a restart on the same port that fails for
    the minute in which the kernel keeps closed connections, and Serve then blocks the port for
    good.
    """
    from ray.serve._private import replica

    def at(http_options: Any) -> Any:
        changed = {"host": socket.host}
        if socket.tls_certificate is not None:
            changed["ssl_certfile"] = str(socket.tls_certificate)
            changed["ssl_keyfile"] = str(socket.tls_key)
        return http_options.model_copy(update=changed)

    _wrap(replica, limits, at, enable_so_reuseport=True)


def outermost() -> list[Middleware]:
    """For Serve's `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, the one way that Ray leaves.

    Called before a proxy or a replica listens; a proxy is told no limits of ours but the usual.
    """
    proxy = sys.modules.get("ray.serve._private.proxy")
    if proxy is not None:
        _wrap(proxy, Limits(), lambda http_options: http_options)
    return [Middleware(SafeHeaders)]


def _wrap(
    module: ModuleType, limits: Limits, options_of: Callable[[Any], Any], **always: Any
) -> None:
    from ray.serve._private import http_util

    start = http_util.start_asgi_http_server

    @functools.wraps(start)
    async def start_bounded(app: Any, http_options: Any, **kwargs: Any) -> Any:
        task, server = await start(app, options_of(http_options), **{**kwargs, **always})
        # The task has not run yet: nothing waits between its creation and here.
        bound_heads(server.config, limits)
        return task, server

    vars(module)["start_asgi_http_server"] = start_bounded
