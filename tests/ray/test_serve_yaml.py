"""`--print-config` as `serve deploy` reads it: it deploys, and a changed bundle swaps in place."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from fer_ray.bundle.load import load_bundle
from tests.bundles import tiny_bundle
from tests.serving import faces

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_printed_config_deploys_and_changes_the_bundle(tmp_path: Path) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    from fer_ray.serve.endpoint import Endpoint, free_port
    from fer_ray.serve.serve_yaml import serve_yaml
    from fer_ray.serve.settings import Settings
    from fer_ray.serve.start import start_serve, wait_until_ready

    first = tiny_bundle(tmp_path / "first")
    second = tiny_bundle(tmp_path / "second", seed=1)
    port = free_port("127.0.0.1")
    settings = Settings(precision="fp32", num_threads=1, notice="Only for us")
    endpoint = Endpoint("127.0.0.1", port, 1, 2, False, None, None, settings)
    start_serve(endpoint, port)
    try:
        for bundle in (first, second):
            document = YAML(typ="safe").load(serve_yaml(endpoint, str(bundle)))
            config = ServeDeploySchema.model_validate(document)
            _get_global_client().deploy_apps(config, _blocking=True)
            wait_until_ready(endpoint.url)
            wanted = load_bundle(bundle).id
            deadline = time.monotonic() + 30
            while True:
                answer = httpx.post(f"{endpoint.url}/v1/predict", content=faces(1)[0]).json()
                if answer["model"]["id"] == wanted:
                    break
                assert time.monotonic() < deadline, answer
                time.sleep(0.1)
        assert "Only for us" in httpx.get(endpoint.url).text
    finally:
        serve.shutdown()
