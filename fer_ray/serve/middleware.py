"""Around every answer: a request id in and out, safe headers, a count, and no traceback."""

from __future__ import annotations

import datetime
import itertools
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_ray.serve.access_log import AccessLog
from fer_ray.serve.measures import Measures
from fer_ray.serve.problems import RefusedError

REQUEST_ID = "x-request-id"
FACTS = "fer_ray"
"""Key of the scope's entry in which handlers leave what the log and the counters want."""

_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Unique, not secret: asking the system for random bytes lets go of the GIL on every request.
_PROCESS = secrets.token_hex(8)
_COUNT = itertools.count()
_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}

log = logging.getLogger("ray.serve.fer_ray")
"""A child of Serve's logger, so that its lines land in the replica's log file."""


class SafeHeaders:
    """ASGI middleware: one usable request id, and headers that browsers obey.

    Harmless when applied twice. Under Serve it is also applied outermost, for Serve takes any id
    that a client sends, adds its own header, and answers some requests itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get(REQUEST_ID, "")
        if not _USABLE_ID.fullmatch(request_id):
            request_id = f"{_PROCESS}{next(_COUNT):016x}"
            MutableHeaders(scope=scope)[REQUEST_ID] = request_id
        own = (REQUEST_ID.encode(), request_id.encode())
        is_https = scope.get("scheme") == "https"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                headers = [pair for pair in given if pair[0].lower() != own[0]]
                headers.append(own)  # one, whoever else set it
                names = {name for name, _ in headers}
                headers += [pair for pair in _SECURITY_HEADERS.items() if pair[0] not in names]
                if is_https and b"strict-transport-security" not in names:
                    headers.append((b"strict-transport-security", b"max-age=31536000"))
                message["headers"] = headers
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Accounts:
    """ASGI middleware: counts and logs each request, and turns a failure into a problem.

    Args:
        app: within.
        measures: of this replica.
        access_log: None where none is kept.
    """

    def __init__(self, app: ASGIApp, measures: Measures, access_log: AccessLog | None) -> None:
        self.app = app
        self._measures = measures
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        facts: dict[str, Any] = {}
        scope[FACTS] = facts
        status = 0

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noting_status)
        except Exception:
            request_id = Headers(scope=scope)[REQUEST_ID]
            log.exception("request %s failed", request_id)
            facts["problem"] = "internal"
            if status:
                raise
            refusal = RefusedError("internal", "the failure is in the server's log under this id")
            await refusal.response(request_id)(scope, receive, send_noting_status)
        finally:
            self._account(scope, status, facts, time.perf_counter() - began)

    def _account(self, scope: Scope, status: int, facts: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        # Status 0: the client went away before an answer.
        outcome = facts.get("problem", "ok" if status else "disconnected")
        self._measures.requests.labels(route, outcome).inc()
        self._measures.seconds.labels(route).observe(seconds)
        if self._access_log is None:
            return
        client = scope.get("client")
        self._access_log.add(
            {
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                "request_id": Headers(scope=scope).get(REQUEST_ID),
                "client": client[0] if client else None,
                "key": facts.get("key"),
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "outcome": outcome,
                "seconds": round(seconds, 6),
                "body_bytes": facts.get("body_bytes", 0),
                "images": facts.get("images", 0),
            }
        )
