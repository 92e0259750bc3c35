"""The Open Inference Protocol V2 over JSON: health, metadata, inference.

One input tensor `image` of base64 texts; outputs `probabilities`, `label` and `uncertain`. Its
extensions (binary tensors, shared memory, repositories, statistics) are not offered.
https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request, Response

from fer_ray import __version__
from fer_ray.serve import documents, protocol
from fer_ray.serve.answers import json_answer, ready
from fer_ray.serve.batcher import Answer
from fer_ray.serve.bodies import read_infer
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.documents import BODY_PROBLEMS
from fer_ray.serve.gate import Gate
from fer_ray.serve.middleware import FACTS
from fer_ray.serve.problems import RefusedError
from fer_ray.serve.protocol import InferInput, InferRequest, V2Problem


def add_routes(app: FastAPI, slot: Slot, gate: Gate) -> None:
    """Add `/v2` and what lies below it."""

    @app.get("/v2", **_get(protocol.ServerMetadata, 401, 500))
    async def server_metadata(request: Request) -> Response:
        """What this server is."""
        gate.check_key(request)
        return json_answer({"name": "fer-ray", "version": __version__, "extensions": []})

    @app.get("/v2/health/live", **_get(protocol.Live, 500, needs_key=False))
    async def live() -> Response:
        """Whether the process lives."""
        return json_answer({"live": True})

    @app.get("/v2/health/ready", **_get(protocol.Ready, 500, 503, needs_key=False))
    async def server_ready() -> Response:
        """Whether a model is loaded and gave its golden answers."""
        ready(slot)
        return json_answer({"ready": True})

    @app.get("/v2/models/{name}", **_get(protocol.ModelMetadata, 401, 404, 500, 503))
    async def model_metadata(name: str, request: Request) -> Response:
        """Tensors that the model takes and gives."""
        gate.check_key(request)
        return json_answer(_metadata(_named(slot, name)))

    @app.get("/v2/models/{name}/ready", **_get(protocol.Ready, 401, 404, 500, 503))
    async def model_ready(name: str, request: Request) -> Response:
        """Whether this model is the one that is served."""
        gate.check_key(request)
        _named(slot, name)
        return json_answer({"ready": True})

    @app.post(
        "/v2/models/{name}/infer",
        **documents.route(
            protocol.InferAnswer,
            (404, *BODY_PROBLEMS),
            problem=V2Problem,
            extra=documents.with_body(
                {"application/json": documents.json_body(InferRequest)}, takes_top_k=False
            ),
        ),
    )
    async def infer(name: str, request: Request) -> Response:
        """Classify the images of a tensor; one that is refused refuses the request."""
        async with gate.admit(request) as ticket:
            _named(slot, name)
            asked = await read_infer(request, ticket, gate.limits)
            classifier = _named(slot, name)  # anew: a slow body may have seen an update
            images = _images(asked.inputs[0], gate.limits.batch_images)
            request.scope[FACTS]["images"] = len(images)
            ticket.take_images(len(images))
            with classifier.in_use():
                async with gate.in_time():
                    answers = await _answers(classifier, images)
        return json_answer(_inferred(classifier, asked, answers))


def _get(answer: Any, *problems: int, needs_key: bool = True) -> dict[str, Any]:
    return documents.route(answer, problems, needs_key=needs_key, problem=V2Problem)


def _named(slot: Slot, name: str) -> Classifier:
    classifier = ready(slot)
    served = classifier.predictor.bundle.contents.name
    if name != served:
        raise RefusedError("unknown-model", f"{name[:100]!r}; {served!r} is served")
    return classifier


def _images(tensor: InferInput, max_images: int) -> list[str]:
    """The tensor's texts, flat."""
    flat: list[Any] = []
    for item in tensor.data:
        flat.extend(item if isinstance(item, list) else [item])
    if not all(isinstance(item, str) for item in flat):
        raise RefusedError("invalid-parameter", "inputs.0.data: base64 texts are wanted")
    if min(tensor.shape) < 1 or math.prod(tensor.shape) != len(flat):
        raise RefusedError(
            "invalid-parameter", f"shape {tensor.shape} does not fit {len(flat)} elements of data"
        )
    if len(flat) > max_images:
        raise RefusedError(
            "too-many-images",
            f"{len(flat):,} images, but at most {max_images} are taken at once",
        )
    return flat


async def _answers(classifier: Classifier, images: list[str]) -> list[Answer]:
    answers: list[Answer] = []
    for index, answer in enumerate(await classifier.answer_each(images)):
        if isinstance(answer, RefusedError):
            raise RefusedError(answer.name, f"image {index}: {answer.args[1]}") from answer
        answers.append(answer)
    return answers


def _metadata(classifier: Classifier) -> dict[str, Any]:
    bundle = classifier.predictor.bundle
    num_classes = len(bundle.contents.class_names)
    return {
        "name": bundle.contents.name,
        "versions": [bundle.id[:12]],
        "platform": "fer_ray",
        "inputs": [{"name": "image", "shape": [-1], "datatype": "BYTES"}],
        "outputs": [
            {"name": "probabilities", "shape": [-1, num_classes], "datatype": "FP32"},
            {"name": "label", "shape": [-1], "datatype": "BYTES"},
            {"name": "uncertain", "shape": [-1], "datatype": "BOOL"},
        ],
    }


def _inferred(classifier: Classifier, asked: InferRequest, answers: list[Answer]) -> dict[str, Any]:
    bundle = classifier.predictor.bundle
    names = bundle.contents.class_names
    num_images = len(answers)
    tensors = {
        "probabilities": {
            "shape": [num_images, len(names)],
            "datatype": "FP32",
            "data": [value for answer in answers for value in answer.probabilities],
        },
        "label": {
            "shape": [num_images],
            "datatype": "BYTES",
            "data": [names[answer.label_index] for answer in answers],
        },
        "uncertain": {
            "shape": [num_images],
            "datatype": "BOOL",
            "data": [answer.uncertain for answer in answers],
        },
    }
    wanted = [output.name for output in asked.outputs] if asked.outputs else list(tensors)
    document: dict[str, Any] = {
        "model_name": bundle.contents.name,
        "model_version": bundle.id[:12],
        "outputs": [{"name": name, **tensors[name]} for name in wanted],
    }
    if asked.id is not None:
        document["id"] = asked.id
    return document
