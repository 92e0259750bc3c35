"""Faults that pass: waiting and trying again, and giving up in good order.

A transient fault (throttling, a timeout, a reset, expired credentials, a full disk) says nothing
about an image. It is tried again with growing, jittered waits and then leaves the shard unfinished;
it never becomes a row.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fer_ray.errors import FerRayError, UnfinishedError

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a transient fault is borne.

    Attributes:
        give_up_after_s: from the first failure of one action.
        first_wait_s: doubled after each failure; the wait itself is drawn from its upper half.
        longest_wait_s: its bound.
    """

    give_up_after_s: float = 60.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 10.0


class TransientError(Exception):
    """An action failed in a way that may pass."""


def patiently(
    action: Callable[[], T],
    patience: Patience,
    what: str,
    stopped: threading.Event | None = None,
) -> T:
    """Do it, again where it fails with an `OSError` or a `TransientError`.

    Args:
        action: anything that can be repeated.
        patience: how long.
        what: named when it is given up.
        stopped: ends the waiting, when the job ends for another reason.

    Raises:
        UnfinishedError: it kept failing.
    """
    stopped = stopped or threading.Event()
    wait, failed_at = patience.first_wait_s, None
    while True:
        try:
            return action()
        except FerRayError:
            raise
        except (OSError, TransientError) as error:
            now = time.monotonic()
            failed_at = now if failed_at is None else failed_at
            if stopped.is_set() or now + wait - failed_at > patience.give_up_after_s:
                raise UnfinishedError(
                    f"{what} kept failing for {now - failed_at:.0f} s: {short(error)}"
                ) from error
        stopped.wait(wait * random.uniform(0.5, 1.0))
        wait = min(2 * wait, patience.longest_wait_s)


def short(error: BaseException) -> str:
    """The first line of an error, at most 200 characters."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200]
