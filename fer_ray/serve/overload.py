"""The answer of a replica that has as much work as it takes, before much is done for a request.

On its usual way through Serve, FastAPI and our own layers a request costs the event loop about as
much whether it is answered or refused. At twice its capacity a replica that refused there still
answered 0.61 of what it can; refusing here, 0.98 (LOG.md).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fer_ray.serve.access_log import AccessLog
from fer_ray.serve.answers import answer_refused
from fer_ray.serve.limits import Admission, Limits
from fer_ray.serve.measures import Measures
from fer_ray.serve.middleware import Accounts, SafeHeaders


def overloaded(limits: Limits, measures: Measures, access_log: AccessLog | None) -> ASGIApp:
    """An application that refuses every request as `overloaded`, counted and logged as usual."""
    refusal = Admission(limits).overloaded(f"{limits.requests} requests are in work")

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        response = await answer_refused(Request(scope), refusal)
        await response(scope, receive, send)

    return SafeHeaders(Accounts(refuse, measures, access_log))
