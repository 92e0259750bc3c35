"""The API does what its OpenAPI document says: generated requests of every kind."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fer_ray.serve.app import build_app
from fer_ray.serve.classifier import Slot

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_every_route_keeps_to_its_document(slot: Slot) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(slot))
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
