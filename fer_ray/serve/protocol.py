"""The HTTP API's documents, as DESIGN fixes them: what goes in, what comes out, with examples.

Requests are validated with these models. Answers are built as plain data on the fast path and
described by these models in OpenAPI; a test holds the two together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_EXAMPLE_ID = "9a3c7f21c0b94ad2b1f0c5d6e7f80912"
_EXAMPLE_MODEL: dict[str, JsonValue] = {
    "name": "fer2013-small",
    "id": "5f0c1d7e9b2a4c6d8e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f",
}
_EXAMPLE_PREDICTIONS: list[JsonValue] = [
    {"label": "happy", "score": 0.91},
    {"label": "neutral", "score": 0.05},
    {"label": "surprise", "score": 0.04},
]
_EXAMPLE_PROBLEM: dict[str, JsonValue] = {
    "type": "/problems/undecodable-image",
    "title": "The image cannot be decoded",
    "status": 422,
    "detail": "truncated: cannot be decoded: image file is truncated",
}


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameters(_Document):
    """Options of a request."""

    top_k: int | None = Field(default=None, ge=1, description="Best classes; null is all of them.")


class PredictParameters(Parameters):
    """Options of the routes of our own."""

    faces: bool | None = Field(
        default=None,
        description="Find the faces in a photo and classify each, where the server offers it.",
    )


class PredictRequest(_Document):
    """One image as JSON."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"inputs": "/9j/4AAQSkZJRg==", "parameters": {"top_k": 3}}}
    )

    inputs: str = Field(description="The image file in base64.")
    parameters: PredictParameters | None = None


class BatchRequest(_Document):
    """Several images as JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "inputs": ["/9j/4AAQSkZJRg==", "iVBORw0KGgo="],
                "parameters": {"top_k": 1},
            }
        }
    )

    inputs: list[str] = Field(min_length=1, description="Image files in base64.")
    parameters: PredictParameters | None = None


class HubParameters(Parameters):
    """Options that Hugging Face's client knows."""

    function_to_apply: Literal["softmax"] | None = Field(
        default=None, description="Scores are always calibrated probabilities."
    )


class HubRequest(_Document):
    """One image as Hugging Face's client sends it with options."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"inputs": "/9j/4AAQSkZJRg==", "parameters": {"top_k": 2}}}
    )

    inputs: str = Field(description="The image file in base64.")
    parameters: HubParameters | None = None


class Prediction(_Document):
    label: str
    score: float = Field(ge=0, le=1, description="Calibrated probability.")


class Model(_Document):
    name: str
    id: str = Field(description="sha256 over weights, config, preprocessor and calibration.")


class Box(_Document):
    """Where a face is, in pixels of the photo as it is displayed."""

    x: float = Field(description="Left edge.")
    y: float = Field(description="Upper edge.")
    w: float
    h: float


class Face(_Document):
    """One face found in a photo."""

    box: Box
    detector_score: float = Field(description="Higher is surer; no probability.")
    predictions: list[Prediction] = Field(description="Best first.")
    uncertain: bool


_PREDICTIONS = "Best first. Of the largest face where faces were asked for; empty without one."
_UNCERTAIN = "Whether the best score lies below the bundle's threshold; true without a face."
_FACES = "From left to right; empty where none was found. Only where faces were asked for."
_FACES_FOUND = "More than in `faces` where only the largest were classified."


class PredictAnswer(_Document):
    """One image's answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "predictions": _EXAMPLE_PREDICTIONS,
                "uncertain": False,
                "model": _EXAMPLE_MODEL,
                "request_id": _EXAMPLE_ID,
            }
        }
    )

    predictions: list[Prediction] = Field(description=_PREDICTIONS)
    uncertain: bool = Field(description=_UNCERTAIN)
    faces: list[Face] | None = Field(default=None, description=_FACES)
    faces_found: int | None = Field(default=None, description=_FACES_FOUND)
    model: Model
    request_id: str


class ItemProblem(_Document):
    """An RFC 9457 problem of one image."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE_PROBLEM})

    type: str = Field(description="Stable; `/problems/` and a name.")
    title: str
    status: int
    detail: str


class Problem(ItemProblem):
    """An RFC 9457 problem."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**_EXAMPLE_PROBLEM, "request_id": _EXAMPLE_ID}}
    )

    request_id: str


class ItemAnswer(_Document):
    predictions: list[Prediction] = Field(description=_PREDICTIONS)
    uncertain: bool = Field(description=_UNCERTAIN)
    faces: list[Face] | None = Field(default=None, description=_FACES)
    faces_found: int | None = Field(default=None, description=_FACES_FOUND)


class ItemRefused(_Document):
    problem: ItemProblem


class BatchAnswer(_Document):
    """An entry an image, in the order of the request: an answer, or a problem."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "results": [
                    {"predictions": _EXAMPLE_PREDICTIONS, "uncertain": False},
                    {"problem": _EXAMPLE_PROBLEM},
                ],
                "model": _EXAMPLE_MODEL,
                "request_id": _EXAMPLE_ID,
            }
        }
    )

    results: list[ItemAnswer | ItemRefused]
    model: Model
    request_id: str


class ModelCard(_Document):
    name: str
    id: str
    labels: list[str]
    metrics: dict[str, Any] = Field(description="Of the bundle: figures on its validation split.")
    threshold: float = Field(description="Answers with a lower score are uncertain.")
    runtime: str
    precision: str
    device: str
    faces: str = Field(description="Detector that `faces` asks for: none, haar or yunet.")
    inference: dict[str, Any]


class Models(_Document):
    """What is served."""

    models: list[ModelCard]


class Health(_Document):
    status: str


# --- Open Inference Protocol V2 -------------------------------------------------------------------


class InferInput(BaseModel):
    """A tensor of images: one base64 text each, in a shape that multiplies to their number."""

    name: Literal["image"]
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    data: list[Any] = Field(min_length=1, description="Base64 texts, nested as the shape says.")
    parameters: dict[str, Any] | None = None


class InferOutput(BaseModel):
    name: Literal["probabilities", "label", "uncertain"]
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """Unknown members are ignored, as the protocol has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "42",
                "inputs": [
                    {
                        "name": "image",
                        "shape": [1],
                        "datatype": "BYTES",
                        "data": ["/9j/4AAQSkZJRg=="],
                    }
                ],
            }
        }
    )

    id: str | None = None
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[InferOutput] | None = None
    parameters: dict[str, Any] | None = None


class Tensor(_Document):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferAnswer(_Document):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class TensorMetadata(_Document):
    name: str
    shape: list[int] = Field(description="-1 is any number of images.")
    datatype: str


class ModelMetadata(_Document):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(_Document):
    name: str
    version: str
    extensions: list[str]


class Live(_Document):
    live: bool


class Ready(_Document):
    ready: bool


class V2Problem(Problem):
    """An RFC 9457 problem with the member that clients of this protocol read."""

    error: str
