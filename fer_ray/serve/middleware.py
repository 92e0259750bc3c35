"""Around every answer: a request id in and out, safe headers, and no traceback."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_ray.serve.problems import RefusedError

REQUEST_ID = "x-request-id"
_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger("ray.serve.fer_ray")
"""A child of Serve's logger, so that its lines land in the replica's log file."""


class Envelope:
    """ASGI middleware; harmless when applied twice.

    The application applies it innermost. Under Serve it is also applied outermost, for Serve
    takes any id that a client sends, adds its own header, and answers some requests itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get(REQUEST_ID, "")
        if not _USABLE_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
            MutableHeaders(scope=scope)[REQUEST_ID] = request_id
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id  # one, whoever else set it
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request %s failed", request_id)
            if has_started:
                raise
            refusal = RefusedError("internal", "the failure is in the server's log under this id")
            await refusal.response(request_id)(scope, receive, send_with_headers)


def outermost() -> list[Middleware]:
    """For Serve's `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, the one way that Ray leaves."""
    return [Middleware(Envelope)]
