"""What `serve` refuses before it starts anything."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fer_ray import api
from fer_ray.errors import BundleError, FerRayError, UserError
from fer_ray.serve.control import ControlSocket, request_update, socket_path
from fer_ray.serve.endpoint import Endpoint, check_endpoint, free_port
from fer_ray.serve.keys import add_key
from fer_ray.serve.serve_yaml import serve_yaml
from fer_ray.serve.settings import Settings
from fer_ray.serve.start import cause_of, environment


def endpoint(
    host: str = "127.0.0.1",
    port: int | None = None,
    num_replicas: int = 1,
    max_replicas: int | None = None,
    *,
    high_throughput: bool = False,
    **settings: Any,
) -> Endpoint:
    return Endpoint(
        host,
        port or free_port("127.0.0.1"),
        num_replicas,
        max_replicas or num_replicas,
        high_throughput,
        None,
        None,
        Settings(precision="fp32", **settings),
    )


def test_loopback_is_served_directly_by_one_replica() -> None:
    asked = endpoint("localhost")
    checked = check_endpoint(asked, allow_open=False)
    assert checked.host == "127.0.0.1"
    assert checked.url == f"http://127.0.0.1:{asked.port}"
    assert checked.mode == "direct"
    assert endpoint(num_replicas=2).mode == "proxy"
    assert endpoint(max_replicas=2).mode == "proxy"
    assert endpoint(num_replicas=2, high_throughput=True).mode == "haproxy"


def test_beyond_loopback_only_with_keys_or_when_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no API key is wanted") as caught:
        check_endpoint(endpoint("0.0.0.0"), allow_open=False)
    assert "--api-keys" in str(caught.value)
    assert "--insecure-no-auth" in str(caught.value)
    asked = endpoint("0.0.0.0")
    checked = check_endpoint(asked, allow_open=True)
    assert checked.url == f"http://127.0.0.1:{asked.port}"
    keys = tmp_path / "keys"
    add_key(keys, "alice")
    guarded = check_endpoint(endpoint("0.0.0.0", api_keys=keys), allow_open=False)
    assert guarded.settings.guards_operations
    at_home = check_endpoint(endpoint(api_keys=keys), allow_open=False)
    assert not at_home.settings.guards_operations


def test_files_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"API keys .* cannot be read"):
        check_endpoint(endpoint(api_keys=tmp_path / "none"), allow_open=False)
    with pytest.raises(UserError, match="its directory is not there"):
        check_endpoint(endpoint(access_log=tmp_path / "no" / "log"), allow_open=False)
    with pytest.raises(UserError, match="belong together"):
        api.endpoint(port=free_port("127.0.0.1"), tls_key=tmp_path / "key")
    with pytest.raises(UserError, match="cannot be used"):
        api.endpoint(
            port=free_port("127.0.0.1"), tls_key=tmp_path / "key", tls_certificate=tmp_path / "c"
        )


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
        ("127.0.0.1", None, 65, r"replicas must lie in 1\.\.64, but got 65"),
    ],
)
def test_values_out_of_range(host: str, port: int | None, num_replicas: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_endpoint(
            endpoint(host, port, num_replicas, max_replicas=max(1, num_replicas)), allow_open=False
        )


def test_fewer_at_most_than_at_least() -> None:
    with pytest.raises(UserError, match=r"max-replicas must lie in 3 \(replicas\)\.\.64"):
        check_endpoint(endpoint(num_replicas=3, max_replicas=2), allow_open=False)


def test_direct_ingress_listens_on_the_port_asked_for() -> None:
    asked = endpoint()
    variables = environment(asked)
    assert variables["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == str(asked.port)
    assert variables["RAY_AUTH_MODE"] == "token"
    assert environment(endpoint(num_replicas=2))["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "0"
    assert asked.replica_settings.socket is not None
    assert asked.replica_settings.socket.host == "127.0.0.1"
    assert endpoint(num_replicas=2).replica_settings.socket is None


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
    haproxy = "RuntimeError: HAProxy crashed\n[ALERT]    (7) : config : socket path too long\n"
    assert cause_of(haproxy) == "HAProxy: config : socket path too long"


# --- print-config ---------------------------------------------------------------------------------


def test_the_printed_config_is_serves_and_holds_no_secret(tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    keys = tmp_path / "keys"
    key = add_key(keys, "alice")
    text = serve_yaml(endpoint(num_replicas=2, max_replicas=5, api_keys=keys), "/b")
    document = YAML(typ="safe").load(text)
    (application,) = ServeDeploySchema.model_validate(document).applications
    assert application.import_path == "fer_ray.serve.deployment:build"
    assert Settings.model_validate(application.args).api_keys == keys
    (deployment,) = application.deployments
    assert deployment.user_config == {"bundle": "/b"}
    assert document["http_options"]["host"] == "127.0.0.1"
    scaling = document["applications"][0]["deployments"][0]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 5)
    assert key not in text
    assert keys.read_text().split(":")[3].strip() not in text
    assert "RAY_AUTH_MODE=token" in text


# --- the control socket ---------------------------------------------------------------------------


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return free_port("127.0.0.1")


def test_an_update_reaches_the_endpoint_and_its_answer_comes_back(port: int) -> None:
    asked = []

    def swap(bundle: str | None) -> str:
        asked.append(bundle)
        if bundle == "/bad":
            raise BundleError("/bad is not a bundle", "Give one.")
        if bundle == "/broken":
            raise ZeroDivisionError
        return "new"

    control = ControlSocket(port, swap)
    assert socket_path(port).stat().st_mode & 0o777 == 0o600
    assert request_update(port, "/new") == "new"
    with pytest.raises(BundleError, match="The former bundle serves on") as caught:
        request_update(port, "/bad")
    assert caught.value.remedy == "Give one."
    with pytest.raises(FerRayError, match="ZeroDivisionError"):
        request_update(port, "/broken")
    assert request_update(port, None) == "new"
    assert asked == ["/new", "/bad", "/broken", None]
    control.close()
    with pytest.raises(UserError, match=f"port {port}"):
        request_update(port, "/new")


def test_a_directory_that_others_can_write_to_is_refused(port: int) -> None:
    socket_path(port).parent.chmod(0o777)
    with pytest.raises(FerRayError, match="this user's alone"):
        socket_path(port)
