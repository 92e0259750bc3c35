"""What is decided with a request's head: whether it came in time, and whether there is room for it.

uvicorn bounds the time between two requests of a connection, and `fer_ray.serve.bodies` that of a
body. Between them lies the head: a client that opens a connection and says nothing, or a byte a
second, would keep it for ever, and a head without end would fill the memory.

Once the head is there, a replica that has enough to do answers at once (`fer_ray.serve.overload`).
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fer_ray.serve.limits import Limits
from fer_ray.serve.middleware import REQUEST_ID
from fer_ray.serve.problems import MEDIA_TYPE, RefusedError


class BoundedHeads(HttpToolsProtocol):
    """One connection, closed when a request's head takes too long or is too long.

    The time runs from the connection's opening, and later from the first byte after an answer, to
    the end of the head; so it also ends a body that still trickles in after its answer.

    Args:
        limits: of the head, and of requests at once.
        overloaded: answers each further POST; None lets them all in. What is asked by GET is little
            work, and probes and operators want it all the more then.
        uvicorns: uvicorn's own arguments.
    """

    def __init__(self, *, limits: Limits, overloaded: ASGIApp | None, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._limits = limits
        self._overloaded = overloaded
        self._head_bytes = 0
        self._is_in_head = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                most = self._limits.head_bytes
                self._refuse("head-too-large", f"at most {most:,} bytes are taken")
                return
        if self._is_idle and self._deadline is None:
            self._start()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop()
        usual = self.app
        if (
            self._overloaded is not None
            and len(self.tasks) >= self._limits.requests
            and self.parser.get_method() == b"POST"
        ):
            self.app = cast("Any", self._overloaded)
        try:
            super().on_headers_complete()
        finally:
            self.app = usual

    def send_400_response(self, msg: str) -> None:
        """Uvicorn's answer to what is no HTTP, as a problem."""
        self._refuse("invalid-http", msg)

    @property
    def _is_idle(self) -> bool:
        """No request is waiting for its answer."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # typed as if there always were one
        return cycle is None or cycle.response_complete

    def _start(self) -> None:
        self._deadline = self.loop.call_later(self._limits.head_s, self._end)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._deadline = None
        if self._is_in_head:
            self._refuse("head-too-slow", f"it did not arrive within {self._limits.head_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, name: str, detail: str) -> None:
        # A former request's answer may still be on its way: nothing may stand before it.
        if self._is_idle and not self.transport.is_closing():
            self.transport.write(_answer(RefusedError(name, detail)))
        self.transport.close()


def _answer(refusal: RefusedError) -> bytes:
    """The whole of it, for there is no request that the application could answer."""
    request_id = secrets.token_hex(16)
    response = refusal.response(request_id)
    head = [
        f"HTTP/1.1 {refusal.status} {refusal.title}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(response.body)}",
        f"{REQUEST_ID}: {request_id}",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + bytes(response.body)


usual_heads = functools.partial(BoundedHeads, limits=Limits(), overloaded=None)
"""For a server that is told its protocol by name."""


def bound_heads(config: uvicorn.Config, limits: Limits, overloaded: ASGIApp | None) -> None:
    """Let a server that has not started yet decide with the heads; see `BoundedHeads`."""
    made: Callable[..., Any] = functools.partial(BoundedHeads, limits=limits, overloaded=overloaded)
    config.http = cast("type[asyncio.Protocol]", made)
