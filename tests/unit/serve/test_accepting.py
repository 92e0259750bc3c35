"""A busy event loop still lets in who waits at the door."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest
import uvicorn
import uvloop

from fer_ray.serve.ray_sockets import accept_many, listening_socket

CLIENTS = 96


async def turns_to_accept(*, many: bool) -> int:
    """Turns of uvloop's loop from the first to the last of many waiting connections."""
    loop = asyncio.get_running_loop()
    turn = 0
    accepted: list[int] = []

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    class Door(asyncio.Protocol):
        def __init__(self, **uvicorns: Any) -> None:
            pass

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(turn)

    config = uvicorn.Config(_nothing, http=Door, lifespan="off", log_level="critical")  # type: ignore[arg-type]
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    own = listening_socket("127.0.0.1", 0)
    host, port = own.getsockname()
    if many:
        accept_many(server, host, port)
    await server.startup(sockets=[own])
    with ExitStack() as stack:
        for _ in range(CLIENTS):  # the kernel takes them in while the loop is busy here
            stack.enter_context(socket.create_connection((host, port), timeout=10))
        loop.call_soon(count)
        deadline = time.monotonic() + 20
        while len(accepted) < CLIENTS:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
    for listening in server.servers:
        listening.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=10)
    return accepted[-1] - accepted[0]


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answers nobody."""


def test_many_sockets_accept_many_connections_a_turn() -> None:
    assert uvloop.run(turns_to_accept(many=False)) >= CLIENTS - 1, "else this is not needed"
    # The kernel spreads them unevenly: the fullest of 32 sockets holds some ten of 96.
    assert uvloop.run(turns_to_accept(many=True)) <= CLIENTS // 4
