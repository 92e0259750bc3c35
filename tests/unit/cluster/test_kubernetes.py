"""The Kubernetes manifests: the operator's schemas, unknown fields refused, and our promises."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
import yaml

from fer_ray import __version__
from tests.unit.cluster.files import (
    CLUSTER,
    RAY_MANIFESTS,
    SCHEMAS,
    documents,
    locked,
    manifest,
    pods,
    ray_clusters,
)

PART_OF = {"app.kubernetes.io/part-of": "fer-ray"}


@pytest.fixture(scope="module")
def schemas() -> dict[str, jsonschema.Draft202012Validator]:
    """Kind -> its schema, made strict."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"the operator's schemas are not at {SCHEMAS} (or KUBERAY_SCHEMAS)")
    found = {}
    for kind in ("RayCluster", "RayJob", "RayService"):
        (definition,) = documents(SCHEMAS / f"ray.io_{kind.lower()}s.yaml")
        version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"type": "object"}  # the API server's own
        _make_strict(schema)
        found[kind] = jsonschema.Draft202012Validator(schema)
    return found


def _make_strict(schema: Any) -> None:
    """Refuse unknown fields, as `kubectl apply --validate=strict` does; numbers may be texts where
    Kubernetes says so."""
    if isinstance(schema, list):
        for part in schema:
            _make_strict(part)
    if not isinstance(schema, dict):
        return
    closed = "additionalProperties" not in schema
    closed = closed and not schema.get("x-kubernetes-preserve-unknown-fields")
    if closed and isinstance(schema.get("properties"), dict):
        schema["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    for part in list(schema.values()):
        _make_strict(part)


def faults(schema: jsonschema.Draft202012Validator, document: Any) -> list[str]:
    return [f"{list(e.path)}: {e.message[:200]}" for e in schema.iter_errors(document)]


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_the_operator_knows_every_field(
    schemas: dict[str, jsonschema.Draft202012Validator], name: str
) -> None:
    document = manifest(name)
    assert document["apiVersion"] == "ray.io/v1"
    schema = schemas[document["kind"]]
    assert faults(schema, document) == []
    # The schema does refuse: a slip deep in a pod, and a wrong type.
    for where, value in (("volumeMount", []), ("image", 7)):
        broken = copy.deepcopy(document)
        spec = broken["spec"]
        spec = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
        pods(spec)[0]["containers"][0][where] = value
        assert len(faults(schema, broken)) == 1


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_versions_are_those_of_the_lock(name: str) -> None:
    spec = ray_clusters()[name]
    assert spec["rayVersion"] == locked("ray")
    for pod in pods(spec):
        (container,) = pod["containers"]
        image = f"REPLACE_REGISTRY/fer-ray:{__version__}"
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"] == f"{image}-{'cuda' if has_gpu else 'cpu'}"


@pytest.mark.parametrize("name", RAY_MANIFESTS)
def test_the_cluster_is_as_promised(name: str) -> None:
    spec = ray_clusters()[name]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    head = spec["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in [head, *spec["workerGroupSpecs"]]:
        assert group["rayStartParams"]["disable-usage-stats"] == "true"
        template = group["template"]
        assert template["metadata"]["labels"].items() >= PART_OF.items(), "else no policy holds"
    for pod in pods(spec):
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["limits"] == container["resources"]["requests"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"] == "fer-ray-shared"
        assert set(mounts.values()) == set(volumes)
    assert [pod["restartPolicy"] for pod in pods(spec)[1:]] == ["Never"] * (len(pods(spec)) - 1)


def test_no_two_kinds_share_a_name() -> None:
    """The operator names services and secrets by it alone."""
    names = [manifest(name)["metadata"]["name"] for name in RAY_MANIFESTS]
    assert len(set(names)) == len(names)


def test_searching_and_scoring_may_have_gpus() -> None:
    for name in ("raycluster.yaml", "rayjob-tune.yaml", "rayjob-score.yaml"):
        limits = [p["containers"][0]["resources"]["limits"] for p in pods(ray_clusters()[name])]
        assert "1" in [limit.get("nvidia.com/gpu") for limit in limits]


def test_nobody_reaches_more_than_the_endpoint() -> None:
    claim, inside, endpoint = documents(CLUSTER / "kubernetes" / "base.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for policy in (inside, endpoint):
        assert policy["apiVersion"] == "networking.k8s.io/v1"
        assert policy["kind"] == "NetworkPolicy"
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert set(policy["spec"]) == {"podSelector", "policyTypes", "ingress"}
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "an empty `from` lets everyone in"
    assert inside["spec"]["podSelector"]["matchLabels"] == PART_OF
    among, operator = inside["spec"]["ingress"]
    assert among["from"] == [{"podSelector": {"matchLabels": PART_OF}}]
    assert {port["port"] for port in operator["ports"]} == {8265, 52365, 8000}
    (rule,) = endpoint["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [8000]
    (client,) = rule["from"]
    assert client["podSelector"]["matchLabels"] == {"fer-ray/client": "true"}
    service = ray_clusters()["rayservice.yaml"]["workerGroupSpecs"][0]["template"]["metadata"]
    assert service["labels"].items() >= endpoint["spec"]["podSelector"]["matchLabels"].items()


def test_the_service_is_what_serve_prints() -> None:
    from ray.serve.schema import ServeDeploySchema

    from fer_ray.serve.deployment import NAME
    from fer_ray.serve.endpoint import Endpoint
    from fer_ray.serve.serve_yaml import serve_yaml
    from fer_ray.serve.settings import Settings
    from fer_ray.serve.start import common_environment

    written = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(written)
    settings = Settings(num_threads=1, api_keys="/etc/fer-ray/keys", guards_operations=True)
    endpoint = Endpoint("0.0.0.0", 8000, 2, 8, False, None, None, settings)
    printed = yaml.safe_load(serve_yaml(endpoint, "/shared/bundles/1"))
    (mine,), (theirs,) = written["applications"], printed["applications"]
    assert Settings.model_validate(mine.pop("args")) == Settings.model_validate(theirs.pop("args"))
    printed["proxy_location"] = "EveryNode"  # the operator asks each node's proxy for its health
    assert written == printed
    assert mine["name"] == NAME
    # What Ray reads once comes with the image and, for the threads, with the pods.
    image = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    for pod in pods(ray_clusters()["rayservice.yaml"]):
        given = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        for variable, value in common_environment(endpoint).items():
            assert given.get(variable) == value or f"{variable}={value}" in image


@pytest.mark.parametrize("name", ["base.yaml", *RAY_MANIFESTS])
def test_the_first_line_says_what_was_not_run(name: str) -> None:
    first = (CLUSTER / "kubernetes" / name).read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# Not applied here: ")
