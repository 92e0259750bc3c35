"""The cluster launcher's files: Ray's own validation, and what we promise of them."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from fer_ray import __version__
from tests.unit.cluster.files import CLUSTER, LAUNCHER_FILES, launcher, locked

CLOUDS = ("aws.yaml", "gcp.yaml")


def validated(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    return whole


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_takes_the_file(name: str) -> None:
    whole = validated(launcher(name))
    assert whole["max_workers"] >= 1


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_refuses_it_with_an_unknown_key(name: str) -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError, match="idle_timeout_hours"):
        validated({**launcher(name), "idle_timeout_hours": 1})


@pytest.mark.parametrize("name", CLOUDS)
def test_cloud_clusters_cost_nothing_when_idle(name: str) -> None:
    config = launcher(name)
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}, "no trial keeps the head"
    assert head["max_workers"] == 0
    workers = {key: value for key, value in types.items() if value is not head}
    assert all(value["min_workers"] == 0 for value in workers.values())
    assert any(value["resources"].get("GPU", 0) >= 1 for value in workers.values())
    assert 1 <= config["idle_timeout_minutes"] <= 10
    assert "spot" in str(workers).lower()


@pytest.mark.parametrize("name", CLOUDS)
def test_each_node_gets_its_image_from_the_autoscaler(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    config = launcher(name)
    images = {
        key: AutoscalingConfig(config, skip_content_hash=True).get_docker_config(key)["image"]
        for key in config["available_node_types"]
    }
    place = f"REPLACE_REGISTRY/fer-ray:{__version__}"
    assert images == {"head": f"{place}-cpu", "cpu": f"{place}-cpu", "gpu": f"{place}-cuda"}


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_a_token_everywhere_and_the_dashboard_nowhere(name: str) -> None:
    config = launcher(name)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token " in command
        assert "--disable-usage-stats" in command
        assert "--object-store-memory=1000000000" in command
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("name", CLOUDS)
def test_storage_is_mounted_before_the_container_starts(name: str) -> None:
    config = launcher(name)
    assert "-v /shared:/shared" in config["docker"]["run_options"]
    mount = next(c for c in config["initialization_commands"] if "mount -t nfs4" in c)
    assert mount.startswith("mountpoint -q /shared || "), "harmless the second time"
    # The token lies where the launcher puts what is mounted into the container.
    from ray.autoscaler.sdk import get_docker_host_mount_location

    place = get_docker_host_mount_location(config["cluster_name"])
    assert f'"{place}/~/.ray/auth_token"' in config["initialization_commands"][0]


def test_bare_machines_are_asked_for_their_versions() -> None:
    commands = launcher("bare.yaml")["initialization_commands"]
    (asked,) = [command for command in commands if "import fer_ray" in command]
    assert re.findall(r'"(\d[\d.]+)"', asked) == [__version__, locked("ray")]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_first_line_says_what_was_not_run(name: str) -> None:
    first = (CLUSTER / name).read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# Not launched ")
