"""Who comes in, and how much at once: the API key, the admission, the time for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from fer_ray.serve.keys import KeyBook
from fer_ray.serve.limits import Admission, Limits, Ticket
from fer_ray.serve.measures import Measures
from fer_ray.serve.middleware import FACTS
from fer_ray.serve.problems import RefusedError


class Gate:
    """One replica's gate.

    Args:
        limits: of the replica.
        keys: None lets everyone in.
        measures: told how many are in work.
    """

    def __init__(self, limits: Limits, keys: KeyBook | None, measures: Measures) -> None:
        self.limits = limits
        self._keys = keys
        self._admission = Admission(limits)
        measures.in_work.set_function(lambda: self._admission.requests)

    @property
    def wants_key(self) -> bool:
        return self._keys is not None

    def check_key(self, request: Request) -> str:
        """The name of the request's key; empty where none is wanted.

        Raises:
            RefusedError: `unauthorized`.
        """
        if self._keys is None:
            return ""
        given = request.headers.get("x-api-key")
        if given is None:
            scheme, _, rest = request.headers.get("authorization", "").partition(" ")
            given = rest.strip() if scheme.lower() == "bearer" else None
        name = self._keys.name_of(given) if given else None
        if name is None:
            detail = "this key is not known" if given else "no key came with the request"
            raise RefusedError(
                "unauthorized",
                f"{detail}; send `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                {"WWW-Authenticate": "Bearer"},
            )
        request.scope[FACTS]["key"] = name
        return name

    @asynccontextmanager
    async def admit(self, request: Request) -> AsyncIterator[Ticket]:
        """Let a request with images in, until its answer is ready.

        Raises:
            RefusedError: `unauthorized`, `overloaded` or `too-many-requests`.
        """
        with self._admission.request(self.check_key(request)) as ticket:
            yield ticket
            request.scope[FACTS]["body_bytes"] = ticket.held_bytes

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Bound the time of what is within.

        Raises:
            RefusedError: `timed-out`.
        """
        try:
            async with asyncio.timeout(self.limits.answer_s):
                yield
        except TimeoutError as error:
            raise RefusedError(
                "timed-out",
                f"no answer within {self.limits.answer_s:g} s",
                {"Retry-After": str(self.limits.retry_after_s)},
            ) from error
