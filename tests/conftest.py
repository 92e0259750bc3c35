"""What every test shares: markers by folder, no network but this machine, one small Ray.

The environment is set before anything imports Ray, which reads it on import.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent home
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # workers use this environment as it is
os.environ.pop("RAY_ADDRESS", None)  # never a cluster that happens to run here

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and would teach every command under test to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
FOLDER_MARKERS = ("unit", "ray", "e2e", "faults", "cluster")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with the name of its first folder below tests/.

    Of several pytest workers one takes all that starts Ray or measures a process: these tests wait
    more than they compute, and two Rays at once would want twice the machine.
    """
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        folder = item.path.relative_to(TESTS).parts[0]
        if folder not in FOLDER_MARKERS:
            raise pytest.UsageError(f"{item.path}: tests lie in one of tests/{FOLDER_MARKERS}")
        item.add_marker(folder)
        if folder != "unit":
            item.add_marker(pytest.mark.xdist_group("processes"))


# --- network --------------------------------------------------------------------------------------

_outside_attempts: list[str] = []


class OutsideConnectionError(OSError):
    """A test reached for an address that is not this machine's."""


def _refuse(target: str) -> None:
    _outside_attempts.append(target)
    raise OutsideConnectionError(f"tests reach only this machine, but this one tried {target}")


def _is_own_address(text: str) -> bool:
    """Whether `text` is a numeric address of this machine: loopback or one of its interfaces.

    Ray uses the node's own address, so loopback alone is too narrow. Only an own address can be
    bound, which needs no list of interfaces and sends nothing.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback:
        return True
    if mapped.is_multicast:  # can be bound, yet leads away
        return False
    family = socket.AF_INET if mapped.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(mapped), 0))
        except OSError:
            return False
    return True


def _is_own_host(host: str | bytes | None) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    return text in (None, "", "localhost", socket.gethostname()) or _is_own_address(str(text))


def _check_destination(destination: Any) -> None:
    """Refuses an outside destination; that of a Unix socket is a path and not a tuple."""
    if isinstance(destination, tuple) and not _is_own_host(destination[0]):
        _refuse(f"{destination[0]}:{destination[1]}")


@pytest.fixture(scope="session", autouse=True)
def _only_this_machine() -> Iterator[None]:
    """Refuses connections and look-ups that leave this machine, in this process."""
    original_connect = socket.socket.connect
    original_connect_ex = socket.socket.connect_ex
    original_sendto = socket.socket.sendto
    original_getaddrinfo = socket.getaddrinfo
    original_gethostbyname = socket.gethostbyname

    def connect(self: socket.socket, destination: Any) -> None:
        _check_destination(destination)
        original_connect(self, destination)

    def connect_ex(self: socket.socket, destination: Any) -> int:
        _check_destination(destination)
        return original_connect_ex(self, destination)

    def sendto(self: socket.socket, data: Any, *rest: Any) -> int:
        _check_destination(rest[-1])
        return original_sendto(self, data, *rest)

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        if not _is_own_host(host):
            _refuse(f"a look-up of {host!r}")
        return original_getaddrinfo(host, *rest, **options)

    def gethostbyname(host: str) -> str:
        if not _is_own_host(host):
            _refuse(f"a look-up of {host!r}")
        return original_gethostbyname(host)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket.socket, "connect_ex", connect_ex)
        patch.setattr(socket.socket, "sendto", sendto)
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setattr(socket, "gethostbyname", gethostbyname)
        yield


@pytest.fixture(autouse=True)
def _no_outside_attempt(_only_this_machine: None) -> Iterator[None]:
    """Fails a test whose code swallowed the refusal, or met it in another thread."""
    yield
    attempts = list(_outside_attempts)
    _outside_attempts.clear()
    if attempts:
        pytest.fail(f"tests reach only this machine, but this one tried {', '.join(attempts)}")


# --- Ray ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray of two CPUs for all tests of tests/ray; `usefixtures("ray_session")`."""
    import logging

    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=256 * 1024 * 1024,  # bytes; the shared memory of a small container
    )
    yield
    ray.shutdown()
