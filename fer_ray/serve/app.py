"""The FastAPI application: routes, and how their answers are put together. It knows no Ray."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fer_ray import __version__
from fer_ray.serve import protocol
from fer_ray.serve.bodies import (
    BATCH_FIELD,
    FORM_TYPE,
    JSON_TYPE,
    RAW_TYPE,
    SINGLE_FIELD,
    read_batch,
    read_single,
)
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.limits import Admission, Limits
from fer_ray.serve.middleware import REQUEST_ID, Envelope
from fer_ray.serve.problems import MEDIA_TYPE, PROBLEMS, RefusedError

_BODY_PROBLEMS = (400, 408, 413, 415, 422, 500, 503)


def build_app(slot: Slot, limits: Limits | None = None) -> FastAPI:
    """Make the application.

    Args:
        slot: what it serves; looked at anew by each request.
        limits: of this replica.
    """
    limits = limits or Limits()
    admission = Admission(limits)
    app = FastAPI(
        title="fer-ray", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.add_middleware(Envelope)
    app.add_exception_handler(RefusedError, _answer_refused)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)

    @app.post("/v1/predict", **_post(protocol.PredictAnswer, _single_bodies()))
    async def predict(request: Request) -> Response:
        """Classify one image: the file itself, a form or JSON."""
        classifier = _ready(slot)
        with admission.request() as ticket:
            asked = await read_single(request, ticket, limits)
            answer = await classifier.classify(asked.images[0], asked.top_k)
        return _json({**answer, **_signature(classifier, request)})

    @app.post("/v1/predict/batch", **_post(protocol.BatchAnswer, _batch_bodies()))
    async def predict_batch(request: Request) -> Response:
        """Classify several images: one entry each, in order."""
        classifier = _ready(slot)
        with admission.request() as ticket:
            asked = await read_batch(request, ticket, limits)
            results = await classifier.classify_each(asked.images, asked.top_k)
        return _json({"results": results, **_signature(classifier, request)})

    @app.get("/v1/models", **_get(protocol.Models, 503))
    async def models() -> Response:
        """The model being served."""
        return _json({"models": [_card(_ready(slot))]})

    @app.get("/healthz", **_get(protocol.Health))
    async def healthz() -> Response:
        """Whether the process lives."""
        return _json({"status": "live"})

    @app.get("/readyz", **_get(protocol.Health, 503))
    async def readyz() -> Response:
        """Whether the model is loaded and gave its golden answers."""
        _ready(slot)
        return _json({"status": "ready"})

    return app


def _ready(slot: Slot) -> Classifier:
    if slot.classifier is None:
        raise RefusedError("not-ready", "try again in a moment", {"Retry-After": "1"})
    return slot.classifier


def _request_id(request: Request) -> str:
    return request.headers[REQUEST_ID]


def _signature(classifier: Classifier, request: Request) -> dict[str, Any]:
    bundle = classifier.predictor.bundle
    return {
        "model": {"name": bundle.contents.name, "id": bundle.id},
        "request_id": _request_id(request),
    }


def _card(classifier: Classifier) -> dict[str, Any]:
    predictor = classifier.predictor
    contents = predictor.bundle.contents
    return {
        "name": contents.name,
        "id": predictor.bundle.id,
        "labels": list(contents.class_names),
        "metrics": contents.metrics,
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "device": str(predictor.device),
        "inference": predictor.inference,
    }


def _json(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), media_type=JSON_TYPE)


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response(_request_id(request))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path or method."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        refusal = RefusedError(
            "method-not-allowed", f"{path} takes {allowed}, not {request.method}", error.headers
        )
    else:
        refusal = RefusedError("not-found", f"{path}; see /openapi.json for the routes")
    return refusal.response(_request_id(request))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """The client went away while it sent its body; nobody reads this."""
    return Response(status_code=400)


# --- OpenAPI --------------------------------------------------------------------------------------


def _post(answer: type[BaseModel], bodies: dict[str, Any]) -> dict[str, Any]:
    top_k = {
        "name": "top_k",
        "in": "query",
        "description": "Best classes; all of them without it. JSON's own parameter goes first.",
        "schema": {"type": "integer", "minimum": 1},
    }
    body = {"required": True, "content": bodies}
    return {
        **_described(answer, _BODY_PROBLEMS),
        "openapi_extra": {"parameters": [top_k], "requestBody": body},
    }


def _get(answer: type[BaseModel], *problems: int) -> dict[str, Any]:
    return _described(answer, (*problems, 500))


def _described(answer: type[BaseModel], statuses: tuple[int, ...]) -> dict[str, Any]:
    """A route's `response_model`-like documentation, without its cost on every request."""
    responses: dict[int, dict[str, Any]] = {200: {"model": answer}}
    schema = protocol.Problem.model_json_schema()
    for status in statuses:
        titles = [kind.title for kind in PROBLEMS.values() if kind.status == status]
        responses[status] = {
            "description": "; ".join(titles),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
    return {"responses": responses}


def _single_bodies() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": [SINGLE_FIELD],
        "properties": {SINGLE_FIELD: binary},
        "additionalProperties": False,
    }
    return {
        "image/*": {"schema": binary},
        RAW_TYPE: {"schema": binary},
        FORM_TYPE: {"schema": form},
        JSON_TYPE: {"schema": _request_schema(protocol.PredictRequest)},
    }


def _batch_bodies() -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "required": [BATCH_FIELD],
        "properties": {BATCH_FIELD: files},
        "additionalProperties": False,
    }
    return {
        FORM_TYPE: {"schema": form},
        JSON_TYPE: {"schema": _request_schema(protocol.BatchRequest)},
    }


def _request_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A request's schema without references, which would point outside of OpenAPI's document."""
    schema = model.model_json_schema()
    schema.pop("$defs")
    nullable = [protocol.Parameters.model_json_schema(), {"type": "null"}]
    schema["properties"]["parameters"] = {"anyOf": nullable}
    return schema
