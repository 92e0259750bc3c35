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
        head_s: seconds in which the head of a request must have arrived.
        head_bytes: of a head.
        body_s: seconds in which a body must have arrived.
        image_pixels: of one image; more are refused before any is decoded.
        batch_images: of one batch request.
        faces: of one photo that are classified, the largest; the answer says how many there are.
        face_photos: of one batch request in which faces are sought.
        waiting_photos: of all requests in which faces are sought at once; more are answered 503.
        answer_s: seconds from the whole body to its answer.
        requests: taken at once; more are answered 503. Lies below Serve's own limit, whose
            answer is plain text without `Retry-After`.
        key_requests: of them that one API key may have; more are answered 429.
        waiting_images: of all requests at once, so that nobody waits long behind large batches;
            more are answered 503. At least `batch_images`.
        held_bytes: of all bodies taken at once.
        retry_after_s: what a 503 tells the client.
    """

    body_bytes: int = 10_000_000
    head_s: float = 10.0
    head_bytes: int = 65_536
    body_s: float = 30.0
    image_pixels: int = 25_000_000
    batch_images: int = 128
    faces: int = 32
    face_photos: int = 16
    waiting_photos: int = 64
    answer_s: float = 30.0
    requests: int = 256
    key_requests: int = 192
    waiting_images: int = 512
    held_bytes: int = 256_000_000
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        if self.waiting_images < self.batch_images:
            raise ValueError(
                f"waiting_images must be at least batch_images ({self.batch_images}), "
                f"but got {self.waiting_images}"
            )


class Admission:
    """Counts requests, their images and bytes; used from the event loop only."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.images = 0
        self.held_bytes = 0
        self._of_key: dict[str, int] = {}

    @contextmanager
    def request(self, key_name: str = "") -> Iterator[Ticket]:
        """Take a request in, and let go of it, its images and bytes at the end.

        Args:
            key_name: of the API key it came with; empty without one.

        Raises:
            RefusedError: `overloaded`, or `too-many-requests` of this key.
        """
        if self.requests >= self.limits.requests:
            raise self.overloaded(f"{self.requests} requests are in work")
        of_key = self._of_key.get(key_name, 0)
        if key_name and of_key >= self.limits.key_requests:
            seconds = str(self.limits.retry_after_s)
            raise RefusedError(
                "too-many-requests",
                f"{of_key} requests of key {key_name!r} are in work; try again in {seconds} s",
                {"Retry-After": seconds},
            )
        self.requests += 1
        self._of_key[key_name] = of_key + 1
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            self.requests -= 1
            self.images -= ticket.images
            self.held_bytes -= ticket.held_bytes
            self._of_key[key_name] -= 1
            if not self._of_key[key_name]:
                del self._of_key[key_name]

    def overloaded(self, reason: str) -> RefusedError:
        seconds = str(self.limits.retry_after_s)
        return RefusedError(
            "overloaded", f"{reason}; try again in {seconds} s", {"Retry-After": seconds}
        )


class Ticket:
    """One admitted request's images and bytes."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.images = 0
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

    def take_images(self, count: int) -> None:
        """Count the request's images, once they are known.

        Raises:
            RefusedError: `overloaded`: with those of the other requests they are too many.
        """
        admission = self._admission
        if admission.images + count > admission.limits.waiting_images:
            raise admission.overloaded(f"{admission.images} images are in work")
        admission.images += count
        self.images = count
