"""The FastAPI application: what lies at which address. It knows no Ray."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response

from fer_ray import __version__
from fer_ray.serve import documents, measures, open_inference, pages, protocol
from fer_ray.serve.access_log import AccessLog
from fer_ray.serve.answers import answer_problems, card, json_answer, ready, signature
from fer_ray.serve.bodies import Asked, read_batch, read_hub, read_single
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.documents import BODY_PROBLEMS
from fer_ray.serve.gate import Gate
from fer_ray.serve.keys import KeyBook
from fer_ray.serve.limits import Limits, Ticket
from fer_ray.serve.measures import Measures, Snapshot
from fer_ray.serve.middleware import FACTS, Accounts, SafeHeaders
from fer_ray.serve.settings import DEFAULT_NOTICE

Replicas = Callable[[], Awaitable[Sequence[tuple[str, Snapshot]]]]
"""Asks all replicas for their counters: name and snapshot of each."""


@dataclass(frozen=True)
class Surroundings:
    """What the application is given beside what it serves.

    Attributes:
        limits: of this replica.
        keys: None lets everyone in.
        guards_operations: whether `/metrics`, `/docs` and `/openapi.json` want a key too.
        has_page: whether `GET /` is the page.
        notice: what the page says it is and is not.
        finds_faces: whether the page asks for faces.
        access_log: None is none.
        measures: the counters of this replica.
        replicas: None where this process is the only one.
    """

    limits: Limits = field(default_factory=Limits)
    keys: KeyBook | None = None
    guards_operations: bool = False
    has_page: bool = True
    notice: str = DEFAULT_NOTICE
    finds_faces: bool = False
    access_log: AccessLog | None = None
    measures: Measures = field(default_factory=Measures)
    replicas: Replicas | None = None


def build_app(slot: Slot, around: Surroundings | None = None) -> FastAPI:
    """Make the application.

    Args:
        slot: what it serves; looked at anew by each request.
        around: limits, keys and the like.
    """
    around = around or Surroundings()
    gate = Gate(around.limits, around.keys, around.measures)
    app = FastAPI(
        title="fer-ray",
        summary="Classifies facial expressions in images.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Accounts, measures=around.measures, access_log=around.access_log)
    app.add_middleware(SafeHeaders)
    answer_problems(app)
    _add_predictions(app, slot, gate, around.measures)
    open_inference.add_routes(app, slot, gate)
    _add_health(app, slot, gate)
    _add_operations(app, gate, around)
    if around.has_page:
        pages.add_page(app, around.notice, wants_key=gate.wants_key, finds_faces=around.finds_faces)
    return app


def _add_predictions(app: FastAPI, slot: Slot, gate: Gate, counted: Measures) -> None:
    async def read(
        reader: Callable[[Request, Ticket, Limits], Awaitable[Asked]],
        request: Request,
        ticket: Ticket,
    ) -> tuple[Classifier, Asked]:
        ready(slot)
        asked = await reader(request, ticket, gate.limits)
        classifier = ready(slot)  # anew: a slow body may have seen an update
        facts = request.scope[FACTS]
        facts["images"] = len(asked.images)
        ticket.take_images(len(asked.images))
        counted.stage("receive", facts["receive_s"])
        return classifier, asked

    @app.post(
        "/v1/predict",
        **documents.route(
            protocol.PredictAnswer,
            BODY_PROBLEMS,
            extra=documents.with_body(documents.single_bodies(), takes_faces=True),
        ),
    )
    async def predict(request: Request) -> Response:
        """Classify one image: the file itself, a form or JSON."""
        async with gate.admit(request) as ticket:
            classifier, asked = await read(read_single, request, ticket)
            with classifier.in_use():
                async with gate.in_time():
                    answer = await classifier.classify(
                        asked.images[0], asked.top_k, faces=asked.faces
                    )
        return json_answer({**answer, **signature(classifier, request)})

    @app.post(
        "/v1/predict/batch",
        **documents.route(
            protocol.BatchAnswer,
            BODY_PROBLEMS,
            extra=documents.with_body(documents.batch_bodies(), takes_faces=True),
        ),
    )
    async def predict_batch(request: Request) -> Response:
        """Classify several images: one entry each, in order."""
        async with gate.admit(request) as ticket:
            classifier, asked = await read(read_batch, request, ticket)
            with classifier.in_use():
                async with gate.in_time():
                    results = await classifier.classify_each(
                        asked.images, asked.top_k, faces=asked.faces
                    )
        return json_answer({"results": results, **signature(classifier, request)})

    @app.post(
        "/",
        **documents.array_of(
            protocol.Prediction,
            BODY_PROBLEMS,
            extra=documents.with_body(documents.hub_bodies()),
        ),
    )
    async def image_classification(request: Request) -> Response:
        """Classify one image for Hugging Face's `InferenceClient.image_classification`."""
        async with gate.admit(request) as ticket:
            classifier, asked = await read(read_hub, request, ticket)
            with classifier.in_use():
                async with gate.in_time():
                    answer = await classifier.classify(asked.images[0], asked.top_k)
        return json_answer(answer["predictions"])


def _add_health(app: FastAPI, slot: Slot, gate: Gate) -> None:
    @app.get("/v1/models", **documents.route(protocol.Models, (401, 500, 503)))
    async def models(request: Request) -> Response:
        """The model being served: its card, labels and figures."""
        gate.check_key(request)
        return json_answer({"models": [card(ready(slot))]})

    @app.get("/healthz", **documents.route(protocol.Health, (500,), needs_key=False))
    async def healthz() -> Response:
        """Whether the process lives."""
        return json_answer({"status": "live"})

    @app.get("/readyz", **documents.route(protocol.Health, (500, 503), needs_key=False))
    async def readyz() -> Response:
        """Whether the model is loaded and gave its golden answers."""
        ready(slot)
        return json_answer({"status": "ready"})


def _add_operations(app: FastAPI, gate: Gate, around: Surroundings) -> None:
    def check(request: Request) -> None:
        if around.guards_operations:
            gate.check_key(request)

    @app.get("/metrics", **documents.route(None, (401, 500), media_type="text/plain"))
    async def metrics(request: Request) -> Response:
        """Counters of all replicas, for Prometheus."""
        check(request)
        if around.replicas is None:
            replicas: Sequence[tuple[str, Snapshot]] = [("0", around.measures.snapshot())]
        else:
            replicas = await around.replicas()
        return Response(
            measures.exposition(replicas), headers={"content-type": measures.MEDIA_TYPE}
        )

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        check(request)
        return Response(described(app), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        check(request)
        return pages.docs_page(json.loads(described(app)))


def described(app: FastAPI) -> str:
    """The OpenAPI document, as JSON."""
    document = app.openapi()
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes.update(documents.SECURITY_SCHEMES)
    return json.dumps(document, ensure_ascii=False)
