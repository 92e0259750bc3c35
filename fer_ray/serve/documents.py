"""What OpenAPI says of the routes: bodies, answers, and every status that may come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from fer_ray.serve import protocol
from fer_ray.serve.bodies import BATCH_FIELD, FORM_TYPE, JSON_TYPE, RAW_TYPE, SINGLE_FIELD
from fer_ray.serve.problems import MEDIA_TYPE, PROBLEMS

BODY_PROBLEMS = (400, 401, 408, 413, 415, 422, 429, 500, 503)
"""Of every route that takes images."""

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

_TOP_K = {
    "name": "top_k",
    "in": "query",
    "description": "Best classes; all of them without it. JSON's own parameter goes first.",
    "schema": {"type": "integer", "minimum": 1},
}
_FACES = {
    "name": "faces",
    "in": "query",
    "description": "Find the faces in each photo and classify each. Only where the server offers "
    "it (`faces` of /v1/models), else 422. JSON's own parameter goes first.",
    "schema": {"type": "boolean"},
}
_BINARY = {"type": "string", "format": "binary"}


def route(
    answer: type[BaseModel] | None,
    problems: Iterable[int],
    *,
    media_type: str = JSON_TYPE,
    needs_key: bool = True,
    problem: type[protocol.Problem] = protocol.Problem,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Keywords of a FastAPI route: its documentation, without FastAPI's work on each request.

    Args:
        answer: of status 200; None is a text.
        problems: statuses that it may answer with beside 200.
        media_type: of the answer.
        needs_key: where the endpoint wants keys.
        problem: the form of its problems.
        extra: more of OpenAPI.
    """
    text = {"description": "OK", "content": {media_type: {"schema": {"type": "string"}}}}
    responses: dict[int, dict[str, Any]] = {200: {"model": answer} if answer else text}
    schema = problem.model_json_schema()
    for status in problems:
        titles = [kind.title for kind in PROBLEMS.values() if kind.status == status]
        responses[status] = {
            "description": "; ".join(titles),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        if status in (429, 503):
            responses[status]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    security: list[dict[str, Any]] = [{"bearer": []}, {"key": []}, {}] if needs_key else []
    return {"responses": responses, "openapi_extra": {"security": security, **(extra or {})}}


def array_of(model: type[BaseModel], problems: Iterable[int], **more: Any) -> dict[str, Any]:
    """`route` with a bare JSON array as its answer."""
    found = route(None, problems, **more)
    schema = {"type": "array", "items": model.model_json_schema()}
    found["responses"][200]["content"][JSON_TYPE]["schema"] = schema
    return found


def with_body(
    bodies: dict[str, Any], *, takes_top_k: bool = True, takes_faces: bool = False
) -> dict[str, Any]:
    """`extra` of a route that takes a body."""
    body = {"requestBody": {"required": True, "content": bodies}}
    parameters = [*([_TOP_K] if takes_top_k else []), *([_FACES] if takes_faces else [])]
    return {**body, **({"parameters": parameters} if parameters else {})}


def single_bodies() -> dict[str, Any]:
    """Of `/v1/predict`."""
    return {
        **hub_bodies(),
        FORM_TYPE: {"schema": _form(SINGLE_FIELD, _BINARY)},
        JSON_TYPE: json_body(protocol.PredictRequest),
    }


def batch_bodies() -> dict[str, Any]:
    """Of `/v1/predict/batch`."""
    files = {"type": "array", "minItems": 1, "items": _BINARY}
    return {
        FORM_TYPE: {"schema": _form(BATCH_FIELD, files)},
        JSON_TYPE: json_body(protocol.BatchRequest),
    }


def hub_bodies() -> dict[str, Any]:
    """Of `POST /`."""
    return {
        "image/*": {"schema": _BINARY},
        RAW_TYPE: {"schema": _BINARY},
        JSON_TYPE: json_body(protocol.HubRequest),
    }


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A body's media type object, without references: they would point outside of the document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return {"schema": _inlined(schema, definitions)}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [field],
        "properties": {field: schema},
        "additionalProperties": False,
    }
