"""`--print-config`: the endpoint as YAML for `serve deploy` and KubeRay, free of secrets."""

from __future__ import annotations

import io
import json
from typing import Any

from ruamel.yaml import YAML

from fer_ray.serve.endpoint import Endpoint
from fer_ray.serve.start import QUIET, common_environment, gpus_of_each

IMPORT_PATH = "fer_ray.serve.deployment:build"

_HEADER = """\
# fer-ray for Ray Serve: `serve deploy FILE`, or spec.serveConfigV2 of a KubeRay RayService.
# Another bundle is another user_config: deploy the changed file, no request is lost.
# Keys and certificates are named by their path only; every node needs the files there.
# Set these on every node before `ray start`, for Ray reads them once:
{variables}
"""


def serve_yaml(endpoint: Endpoint, place: str | None) -> str:
    """The whole configuration as Serve reads it.

    Args:
        endpoint: checked.
        place: of the bundle, as the nodes see it; None is the shipped model.
    """
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(_document(endpoint, place), text)
    names = common_environment(endpoint)
    if endpoint.mode == "haproxy":
        names = {**names, "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"}
    lines = "\n".join(f"#   {name}={value}" for name, value in sorted(names.items()))
    return _HEADER.format(variables=lines) + text.getvalue()


def _document(endpoint: Endpoint, place: str | None) -> dict[str, Any]:
    from fer_ray.serve.deployment import BUNDLE, NAME, replica_numbers

    # Replicas on other nodes listen where Serve says, not at an address of this machine.
    settings = endpoint.settings
    http: dict[str, Any] = {"host": endpoint.host, "port": endpoint.port}
    if endpoint.tls_certificate is not None:
        http["ssl_certfile"] = str(endpoint.tls_certificate)
        http["ssl_keyfile"] = str(endpoint.tls_key)
    return {
        "proxy_location": "HeadOnly",
        "http_options": http,
        "logging_config": dict(QUIET),
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                # Through JSON: plain numbers, texts and lists.
                "args": json.loads(settings.model_dump_json()),
                "deployments": [
                    {
                        "name": NAME,
                        "user_config": {BUNDLE: place},
                        "ray_actor_options": {
                            "num_cpus": 1,
                            "num_gpus": gpus_of_each(endpoint.max_replicas),
                        },
                        **replica_numbers(endpoint.num_replicas, endpoint.max_replicas),
                    }
                ],
            }
        ],
    }
