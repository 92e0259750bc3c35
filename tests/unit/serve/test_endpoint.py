"""What `serve` refuses before it starts anything."""

from __future__ import annotations

import socket

import pytest

from fer_ray.errors import UserError
from fer_ray.serve.endpoint import Endpoint, check_endpoint, free_port
from fer_ray.serve.start import cause_of, environment


def endpoint(host: str = "127.0.0.1", port: int | None = None, num_replicas: int = 1) -> Endpoint:
    return Endpoint(host, port or free_port("127.0.0.1"), num_replicas, "fp32", num_threads=1)


def test_loopback_is_served_directly_by_one_replica() -> None:
    asked = endpoint("localhost")
    checked = check_endpoint(asked, allow_open=False)
    assert checked.host == "127.0.0.1"
    assert checked.url == f"http://127.0.0.1:{asked.port}"
    assert checked.is_direct
    assert not endpoint(num_replicas=2).is_direct


def test_beyond_loopback_only_when_told() -> None:
    asked = endpoint("0.0.0.0")
    with pytest.raises(UserError, match="API keys come in a later version"):
        check_endpoint(asked, allow_open=False)
    checked = check_endpoint(asked, allow_open=True)
    assert not checked.is_direct, "Serve's own proxy would be a second open port"
    assert checked.url == f"http://127.0.0.1:{asked.port}"


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use") as caught:
            check_endpoint(endpoint(port=port), allow_open=False)
    assert "--port" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "num_replicas", "message"),
    [
        ("127.0.0.1", 65536, 1, r"port must lie in 1\.\.65535, but got 65536"),
        ("127.0.0.1", -1, 1, r"port must lie in 1\.\.65535, but got -1"),
        ("127.0.0.1", None, 0, r"replicas must lie in 1\.\.64, but got 0"),
    ],
)
def test_values_out_of_range(host: str, port: int | None, num_replicas: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_endpoint(endpoint(host, port, num_replicas), allow_open=False)


def test_direct_ingress_listens_on_the_port_asked_for() -> None:
    asked = endpoint()
    variables = environment(asked)
    assert variables["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == str(asked.port)
    assert variables["RAY_AUTH_MODE"] == "token"
    assert environment(endpoint(num_replicas=2))["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "0"


def test_cause_of_a_failed_start() -> None:
    status = (
        "The deployment failed to start 1 times in a row. Error:\n"
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "load.py", line 93, in load_bundle\n'
        "fer_ray.errors.BundleError: /b is not a bundle: it has no bundle.json\n"
        "  Give a bundle's directory, or a run's.\n"
    )
    assert cause_of(status) == "BundleError: /b is not a bundle: it has no bundle.json"
    assert cause_of("no resources") == "no resources"
