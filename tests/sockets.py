"""The kernel's table of listening TCP sockets, by process."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

LISTEN = "0A"


@dataclass(frozen=True)
class Listening:
    """One listening socket.

    Attributes:
        address: numeric.
        port: of it.
        command: of the process that holds it, for a test's message.
    """

    address: str
    port: int
    command: str

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback

    def speaks_http(self) -> bool:
        """Whether it answers HTTP/1.1; Ray's RPC is HTTP/2 and hangs up."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=3) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return connection.recv(16).startswith(b"HTTP/1.")
        except OSError:
            return False


def listening_sockets(mark: str) -> list[Listening]:
    """Of all processes that carry `mark` in their environment."""
    commands: dict[str, str] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark.encode() not in (process / "environ").read_bytes():
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:400]
            for entry in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if found := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                        commands[found[1]] = command
    found_sockets = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in commands:
                host, port = fields[1].split(":")
                found_sockets.append(Listening(_numeric(host), int(port, 16), commands[fields[9]]))
    return found_sockets


def _numeric(text: str) -> str:
    """The kernel writes each 32-bit word in the machine's own order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))
