"""The API does what its OpenAPI document says: generated requests of every kind."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.detection import FaceFinder
from fer_ray.serve.limits import Limits
from fer_ray.serve.problems import PROBLEMS
from tests.serving import call

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("finds_faces", [False, True])
def test_every_route_keeps_to_its_document(
    slot: Slot, predictor: Predictor, finds_faces: bool
) -> None:
    if finds_faces:
        finder = FaceFinder("haar", predictor.source_px, 1, Limits())
        slot = Slot(Classifier(predictor, num_threads=1, finder=finder))
    app = build_app(slot, Surroundings(finds_faces=finds_faces))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checked = []
    for result in schema.get_all_operations():
        operation = result.ok()
        checked.append(operation.label)

        @given(case=operation.as_strategy())
        @settings(max_examples=12, suppress_health_check=list(HealthCheck))
        def keeps_to_it(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        keeps_to_it()
    assert len(checked) == 14
    if finds_faces:
        assert slot.classifier is not None
        slot.classifier.close()


def test_every_route_lists_its_statuses_and_every_option(slot: Slot) -> None:
    document = call(build_app(slot), "GET", "/openapi.json").json()
    known = {200, *(kind.status for kind in PROBLEMS.values())}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = operation["responses"].keys()
            assert {int(status) for status in statuses} <= known, path  # and no `default`
            assert {"200", "500"} <= statuses
            assert ("413" in statuses) == (method == "post"), path
    for path in ("/v1/predict", "/v1/predict/batch"):
        operation = document["paths"][path]["post"]
        assert [entry["name"] for entry in operation["parameters"]] == ["top_k", "faces"]
        parameters = operation["requestBody"]["content"]["application/json"]["schema"]
        assert "faces" in str(parameters["properties"]["parameters"])
    hub = document["paths"]["/"]["post"]
    assert "faces" not in str([hub["parameters"], hub["requestBody"]])
    assert "faces_found" in document["components"]["schemas"]["PredictAnswer"]["properties"]
