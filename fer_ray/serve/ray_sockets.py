"""The sockets that Ray Serve opens: their address, their port, and what they wait for.

Serve has no settings for these. A replica looks `start_asgi_http_server` up in its module, where it
is wrapped. A proxy has it pickled within its class, so there uvicorn's usual protocol is another.
"""

from __future__ import annotations

import functools
from typing import Any

import uvicorn.config
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
        bound_heads(server.config, limits)
        return task, server

    vars(replica)["start_asgi_http_server"] = start_bounded


def outermost() -> list[Middleware]:
    """For Serve's `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, the one way that Ray leaves.

    Called before a proxy or a replica listens; a proxy is told no limits of ours but the usual.
    """
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "fer_ray.serve.heads:usual_heads"
    return [Middleware(SafeHeaders)]
