"""What one replica takes at most, and the count of what it has taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fer_ray.serve.problems import RefusedError


@dataclass(frozen=True)
class Limits:
    """Bounds of one replica.

    Attributes:
        body_bytes: of one request, counted while it streams in.
        body_s: seconds in which a body must have arrived.
        batch_images: of one batch request.
        requests: taken at once; more are answered 503. Lies below Serve's own limit, whose
            answer is plain text without `Retry-After`.
        held_bytes: of all bodies taken at once.
        retry_after_s: what a 503 tells the client.
    """

    body_bytes: int = 10_000_000
    body_s: float = 30.0
    batch_images: int = 128
    requests: int = 256
    held_bytes: int = 256_000_000
    retry_after_s: int = 1


class Admission:
    """Counts requests and their bytes; used from the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.held_bytes = 0

    @contextmanager
    def request(self) -> Iterator[Ticket]:
        """Take a request in, and let go of it and its bytes at the end.

        Raises:
            RefusedError: `overloaded`.
        """
        if self.requests >= self.limits.requests:
            raise self.overloaded(f"{self.requests} requests are in work")
        self.requests += 1
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            self.requests -= 1
            self.held_bytes -= ticket.held_bytes

    def overloaded(self, reason: str) -> RefusedError:
        seconds = str(self.limits.retry_after_s)
        return RefusedError(
            "overloaded", f"{reason}; try again in {seconds} s", {"Retry-After": seconds}
        )


class Ticket:
    """One admitted request's bytes."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held_bytes = 0

    def hold(self, num_bytes: int) -> None:
        """Count bytes as they arrive.

        Raises:
            RefusedError: `body-too-large` for this request, `overloaded` for all of them.
        """
        limits = self._admission.limits
        self.held_bytes += num_bytes
        self._admission.held_bytes += num_bytes
        if self.held_bytes > limits.body_bytes:
            raise RefusedError("body-too-large", f"at most {limits.body_bytes:,} bytes are taken")
        if self._admission.held_bytes > limits.held_bytes:
            raise self._admission.overloaded("the bodies in work fill the memory set aside")
