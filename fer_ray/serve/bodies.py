"""From an HTTP request to the bytes of its images: raw, multipart or JSON, within the limits."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from fer_ray.serve.limits import Limits, Ticket
from fer_ray.serve.middleware import FACTS
from fer_ray.serve.multipart import form_files
from fer_ray.serve.problems import RefusedError
from fer_ray.serve.protocol import (
    BatchRequest,
    HubRequest,
    InferRequest,
    Parameters,
    PredictParameters,
    PredictRequest,
)

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
RAW_TYPE = "application/octet-stream"
"""Also what a body without a media type is taken for (RFC 9110, 8.3)."""

SINGLE_FIELD = "file"
BATCH_FIELD = "files"

Document = TypeVar("Document", PredictRequest, BatchRequest, HubRequest, InferRequest)


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        images: files, or base64 text that is decoded off the event loop; at least one.
        top_k: None is all classes.
        faces: find the faces in each.
    """

    images: list[bytes | str]
    top_k: int | None
    faces: bool = False


async def read_single(request: Request, ticket: Ticket, limits: Limits) -> Asked:
    """Read a request of one image.

    Raises:
        RefusedError: anything about it is wrong.
    """
    media_type = media_type_of(request)
    is_raw = media_type == RAW_TYPE or media_type.startswith("image/")
    if not is_raw and media_type not in (JSON_TYPE, FORM_TYPE):
        raise _unsupported(media_type, f"image/*, {RAW_TYPE}, {FORM_TYPE} or {JSON_TYPE}")
    query = _query(request, PredictParameters)
    body = await read_body(request, ticket, limits)
    if is_raw:
        return _asked([body], None, query)
    if media_type == FORM_TYPE:
        files = form_files(request.headers["content-type"], body, SINGLE_FIELD, max_files=1)
        return _asked([*files], None, query)
    document = _validated(PredictRequest, body)
    return _asked([document.inputs], document.parameters, query)


async def read_batch(request: Request, ticket: Ticket, limits: Limits) -> Asked:
    """Read a request of several images.

    Raises:
        RefusedError: anything about it is wrong.
    """
    media_type = media_type_of(request)
    if media_type not in (JSON_TYPE, FORM_TYPE):
        raise _unsupported(media_type, f"{FORM_TYPE} or {JSON_TYPE}")
    query = _query(request, PredictParameters)
    body = await read_body(request, ticket, limits)
    if media_type == FORM_TYPE:
        files = form_files(
            request.headers["content-type"], body, BATCH_FIELD, max_files=limits.batch_images
        )
        return _asked([*files], None, query)
    document = _validated(BatchRequest, body)
    if len(document.inputs) > limits.batch_images:
        raise RefusedError(
            "too-many-images",
            f"{len(document.inputs):,} images, but at most {limits.batch_images} are taken at once",
        )
    return _asked([*document.inputs], document.parameters, query)


async def read_hub(request: Request, ticket: Ticket, limits: Limits) -> Asked:
    """Read a request of Hugging Face's client: an image as it is, or JSON.

    Raises:
        RefusedError: anything about it is wrong.
    """
    media_type = media_type_of(request)
    is_raw = media_type == RAW_TYPE or media_type.startswith("image/")
    if not is_raw and media_type != JSON_TYPE:
        raise _unsupported(media_type, f"image/*, {RAW_TYPE} or {JSON_TYPE}")
    query = _query(request, Parameters)
    body = await read_body(request, ticket, limits)
    if is_raw:
        return _asked([body], None, query)
    document = _validated(HubRequest, body)
    return _asked([document.inputs], document.parameters, query)


async def read_infer(request: Request, ticket: Ticket, limits: Limits) -> InferRequest:
    """Read an inference request of the Open Inference Protocol, JSON only.

    Raises:
        RefusedError: anything about it is wrong.
    """
    if "inference-header-content-length" in request.headers:
        raise RefusedError(
            "unsupported-media-type",
            "the binary tensor extension is not offered; send JSON (tritonclient: "
            "set_data_from_numpy(..., binary_data=False))",
        )
    media_type = media_type_of(request)
    if media_type not in (JSON_TYPE, RAW_TYPE):  # clients leave the type away, or say octets
        raise _unsupported(media_type, JSON_TYPE)
    _query_nothing(request)
    return _validated(InferRequest, await read_body(request, ticket, limits))


def image_bytes(image: bytes | str) -> bytes:
    """The file itself, of a file or of base64 text.

    Raises:
        RefusedError: `invalid-base64`.
    """
    if isinstance(image, bytes):
        return image
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(
            "invalid-base64", f"{error}; plain base64 is wanted, without prefix and line breaks"
        ) from error


def media_type_of(request: Request) -> str:
    """Lower case, without parameters."""
    value = request.headers.get("content-type", RAW_TYPE)
    return value.partition(";")[0].strip().lower()


def _unsupported(media_type: str, wanted: str) -> RefusedError:
    hint = ""
    if media_type == "application/x-www-form-urlencoded":
        hint = "; with curl, add -H 'Content-Type: image/jpeg' to --data-binary"
    return RefusedError(
        "unsupported-media-type", f"got {media_type[:100]!r}, but {wanted} is wanted{hint}"
    )


async def read_body(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    """The whole body, counted while it arrives.

    Raises:
        RefusedError: `body-too-large`, `body-too-slow` or `overloaded`.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise RefusedError(
            "body-too-large", f"{int(length):,} bytes; at most {limits.body_bytes:,} are taken"
        )
    chunks = []
    began = time.perf_counter()
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                ticket.hold(len(chunk))
                chunks.append(chunk)
    except TimeoutError as error:
        raise RefusedError(
            "body-too-slow", f"it did not arrive within {limits.body_s:g} s"
        ) from error
    request.scope[FACTS]["receive_s"] = time.perf_counter() - began
    return b"".join(chunks)


def _validated(model: type[Document], body: bytes) -> Document:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        detail = _first_fault(error)
        name = "invalid-parameter" if detail.startswith("parameters") else "invalid-json"
        raise RefusedError(name, detail) from error


def _first_fault(error: ValidationError) -> str:
    """Where and what, without the input: that may be an image."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return (f"{place}: {first['msg']}" if place else str(first["msg"]))[:300]


def _query(request: Request, kind: type[Parameters]) -> Parameters | None:
    """The address's parameters; any that the route does not take is refused, not ignored."""
    if not request.url.query:
        return None
    try:
        return kind.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise RefusedError("invalid-parameter", _first_fault(error)) from error


def _query_nothing(request: Request) -> None:
    if request.url.query:
        raise RefusedError("invalid-parameter", "the address takes no parameters here")


def _asked(images: list[bytes | str], given: Parameters | None, query: Parameters | None) -> Asked:
    """JSON's own parameters go before the address's."""
    named: dict[str, Any] = {}
    for parameters in (query, given):
        if parameters is not None:
            named |= parameters.model_dump(include={"top_k", "faces"}, exclude_none=True)
    return Asked(images, named.get("top_k"), named.get("faces", False))
