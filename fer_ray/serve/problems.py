"""Refusals of the HTTP API: RFC 9457 problems with stable types, never a traceback.

RefusedError    the exception: which problem, what about this request, extra headers
PROBLEMS        every type there is, with its status and title
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from fer_ray.errors import DecodeError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A type of problem; its address is `/problems/` and its key in `PROBLEMS`."""

    status: int
    title: str


PROBLEMS = {
    "invalid-http": Kind(400, "This is not HTTP"),
    "invalid-json": Kind(400, "The body is not the JSON that this route takes"),
    "invalid-multipart": Kind(400, "The body is not the form that this route takes"),
    "unauthorized": Kind(401, "An API key is wanted"),
    "not-found": Kind(404, "There is no such route"),
    "unknown-model": Kind(404, "There is no such model"),
    "method-not-allowed": Kind(405, "The route does not take this method"),
    "head-too-slow": Kind(408, "The request's head did not arrive in time"),
    "body-too-slow": Kind(408, "The body did not arrive in time"),
    "body-too-large": Kind(413, "The body has too many bytes"),
    "image-too-large": Kind(413, "The image has too many pixels or bytes"),
    "too-many-images": Kind(413, "The batch has too many images"),
    "unsupported-media-type": Kind(415, "The media type is not one that this route takes"),
    "undecodable-image": Kind(422, "The image cannot be decoded"),
    "invalid-base64": Kind(422, "The input is not base64"),
    "invalid-parameter": Kind(422, "A parameter is wrong"),
    "head-too-large": Kind(431, "The request's head has too many bytes"),
    "too-many-requests": Kind(429, "This key has as many requests in work as one may have"),
    "internal": Kind(500, "The server failed"),
    "not-ready": Kind(503, "The model is not loaded"),
    "overloaded": Kind(503, "The server has as much work as it takes"),
    "timed-out": Kind(503, "The answer took too long"),
}


class RefusedError(Exception):
    """A request, or one image of a batch, is refused.

    Args:
        name: a key of `PROBLEMS`.
        detail: what is wrong here, and what to do.
        headers: beside the usual, such as `Retry-After`.
    """

    def __init__(self, name: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(name, detail, headers)

    @property
    def name(self) -> str:
        return str(self.args[0])

    @property
    def headers(self) -> Mapping[str, str] | None:
        found: Mapping[str, str] | None = self.args[2]
        return found

    @property
    def status(self) -> int:
        return PROBLEMS[self.name].status

    @property
    def title(self) -> str:
        return PROBLEMS[self.name].title

    def document(self) -> dict[str, Any]:
        """The problem as plain data, without its request's id."""
        return {
            "type": f"/problems/{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": str(self.args[1]),
        }

    def response(self, request_id: str, *, for_v2: bool = False) -> Response:
        """The problem as an HTTP answer.

        Args:
            request_id: of the request.
            for_v2: add the `error` that clients of the Open Inference Protocol read.
        """
        document = {**self.document(), "request_id": request_id}
        if for_v2:
            document["error"] = document["detail"]
        return Response(
            json.dumps(document, ensure_ascii=False),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def refused_by_decoder(error: DecodeError) -> RefusedError:
    """The problem of an image that the decoder refuses."""
    name = "image-too-large" if error.error_type == "too_large" else "undecodable-image"
    return RefusedError(name, f"{error.error_type}: {error.message}")
