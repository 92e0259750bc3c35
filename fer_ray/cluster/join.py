"""Joining a Ray cluster by its address, with what can go wrong said in a sentence."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from fer_ray.errors import FerRayError, UserError

CONNECT_S = 5.0
"""How long the head may take to accept a connection; Ray itself would try for a minute."""

_TOKEN = (
    "set RAY_AUTH_MODE=token and put its token into ~/.ray/auth_token (or name the file by "
    "RAY_AUTH_TOKEN_PATH); RAY_AUTH_MODE=disabled for a cluster without one."
)
_ELSEWHERE = "let the cluster run the command: --address http://HEAD:8265 (its dashboard)"


def join(address: str, **options: Any) -> None:
    """Connect this process, as `ray.init` does.

    Args:
        address: `local` (none is joined, one is started), `auto` (the cluster whose node this
            machine is) or HOST:PORT of a head.
        options: of `ray.init`.

    Raises:
        UserError: no cluster there, another version of Ray or Python, no valid token, a machine
            that is no node, or an address of another kind.
    """
    import ray

    if address == "local":  # a Ray of this process's own
        ray.init(address, **options)
        return
    check_address(address)
    try:
        ray.init(address, **options)
    except (RuntimeError, ValueError, ConnectionError, ray.exceptions.RayError) as error:
        raise reason(address, error) from error


def check_address(address: str) -> None:
    """Refuse an address that cannot be joined, before Ray tries.

    Raises:
        UserError: another kind of address, or nothing listens there.
    """
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise UserError(
            f"{address}: no search, training or scoring job can be driven through Ray Client; it "
            "would end with the connection",
            f"Run the command on a node with --address auto, or {_ELSEWHERE}.",
        )
    match = re.fullmatch(r"(?P<host>[^/:\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise UserError(
            "--address is auto, HOST:PORT, or the dashboard's http://HOST:PORT, but got "
            f"{address!r}"
        )
    try:
        socket.create_connection(
            (match["host"].strip("[]"), int(match["port"])), timeout=CONNECT_S
        ).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            "Is its head up (`ray status` there), and its port, mostly 6379, open to this machine?",
        ) from error


def reason(address: str, error: Exception) -> FerRayError:
    """What Ray's failure to connect means."""
    import ray

    text = str(error)
    if "Version mismatch" in text:
        return UserError(
            f"the cluster at {address} and this process differ: {_versions(text)}",
            f"Use the cluster's own image or environment, or {_ELSEWHERE}.",
        )
    if isinstance(error, ray.exceptions.AuthenticationError) or "authentication" in text.lower():
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        return UserError(
            f"the cluster at {address} does not let this process in (RAY_AUTH_MODE is {mode}): "
            f"{_first_line(text)}",
            f"{_TOKEN[0].upper()}{_TOKEN[1:]}",
        )
    if "node_ip_address" in text or "cannot find" in text or "No node info" in text:
        return UserError(
            f"this machine is no node of the cluster at {address}",
            f"Join it (ray start --address={address}), log in on a node, or {_ELSEWHERE}.",
        )
    if "Failed to connect" in text:
        # Ray says the same where it is no Ray at all, and where the token is missing or wrong.
        return UserError(
            f"what listens at {address} does not let this process join (RAY_AUTH_MODE is "
            f"{os.environ.get('RAY_AUTH_MODE', 'not set')})",
            f"If it is the head of a cluster with a token: {_TOKEN}",
        )
    return UserError(
        f"no Ray cluster could be joined at {address}: {_first_line(text)}",
        "Is it up? Start one here by leaving --address and RAY_ADDRESS out.",
    )


def _versions(text: str) -> str:
    """`it runs Ray 2.60.0, Python 3.11.7; here Ray 2.60.0, Python 3.11.9` of Ray's message."""
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    if len(found) != 2:
        return _first_line(text)
    (its_ray, its_python), (ray_, python) = found
    return f"it runs Ray {its_ray}, Python {its_python}; here Ray {ray_}, Python {python}"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason given"
