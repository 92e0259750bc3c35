"""How answers are written: JSON, a model's card, and refusals as problems."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fer_ray.serve.bodies import JSON_TYPE
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.middleware import FACTS, REQUEST_ID
from fer_ray.serve.problems import RefusedError

V2_PREFIX = "/v2"


def json_answer(document: Any) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), media_type=JSON_TYPE)


def ready(slot: Slot) -> Classifier:
    """What is being served.

    Raises:
        RefusedError: `not-ready`.
    """
    if slot.classifier is None:
        raise RefusedError("not-ready", "try again in a moment", {"Retry-After": "1"})
    return slot.classifier


def signature(classifier: Classifier, request: Request) -> dict[str, Any]:
    """Which model answered which request."""
    bundle = classifier.predictor.bundle
    return {
        "model": {"name": bundle.contents.name, "id": bundle.id},
        "request_id": request.headers[REQUEST_ID],
    }


def card(classifier: Classifier) -> dict[str, Any]:
    """The model's card, as data."""
    predictor = classifier.predictor
    contents = predictor.bundle.contents
    return {
        "name": contents.name,
        "id": predictor.bundle.id,
        "labels": list(contents.class_names),
        "metrics": contents.metrics,
        "threshold": contents.calibration.threshold,
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "device": str(predictor.device),
        "faces": classifier.detector,
        "inference": predictor.inference,
    }


def answer_problems(app: FastAPI) -> None:
    """Write everything that is refused as an RFC 9457 problem."""
    app.add_exception_handler(RefusedError, answer_refused)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


async def answer_refused(request: Request, error: Exception) -> Response:
    """A `RefusedError` as an HTTP answer, noted for the log and the counters."""
    assert isinstance(error, RefusedError)
    request.scope[FACTS]["problem"] = error.name
    for_v2 = request.url.path.startswith(V2_PREFIX)
    response = error.response(request.headers[REQUEST_ID], for_v2=for_v2)
    if error.status in (401, 408, 413):
        # What is left of the body is not worth reading.
        response.headers["connection"] = "close"
    return response


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
        refusal = RefusedError("not-found", f"{path}; see /docs for the routes")
    return await answer_refused(request, refusal)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """The client went away while it sent its body; nobody reads this."""
    request.scope[FACTS]["problem"] = "disconnected"
    return Response(status_code=400)
