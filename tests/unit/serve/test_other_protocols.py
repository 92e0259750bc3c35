"""Hugging Face's client and the Open Inference Protocol, with their real clients on a socket."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from fastapi import FastAPI
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

from fer_ray.bundle.predictor import Predictor
from fer_ray.serve import protocol
from tests.serving import (
    TOLERANCE,
    assert_problem,
    assert_same_scores,
    call,
    expected_scores,
    faces,
    listening,
)


@pytest.fixture(scope="module")
def url(app: FastAPI) -> Iterator[str]:
    with listening(app) as address:
        yield address


# --- Hugging Face ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_look_up_of_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client asks its hub for a list of known agents before the first request."""
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._fetch_registry", lambda: None)


def test_hugging_faces_client(url: str, predictor: Predictor, tmp_path: Path) -> None:
    file = faces(1, "JPEG")[0]
    path = tmp_path / "face.jpg"
    path.write_bytes(file)
    expected = expected_scores(predictor, file)
    client = InferenceClient(model=url)
    everything = client.image_classification(str(path))
    two = client.image_classification(file, top_k=2)
    assert_same_scores({"predictions": everything}, expected)
    assert [entry.label for entry in two] == sorted(expected, key=lambda name: -expected[name])[:2]


def test_hugging_faces_client_hears_what_is_wrong(url: str) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(model=url).image_classification(b"not an image")
    assert caught.value.response.status_code == 422


def test_hub_route(app: FastAPI, face: bytes) -> None:
    inputs = base64.b64encode(face).decode()
    softmax = {"inputs": inputs, "parameters": {"function_to_apply": "softmax"}}
    assert len(call(app, "POST", "/", json=softmax).json()) == 7
    sigmoid = {"inputs": inputs, "parameters": {"function_to_apply": "sigmoid"}}
    assert_problem(call(app, "POST", "/", json=sigmoid), "invalid-parameter")
    form = call(app, "POST", "/", files={"file": ("face.png", face)})
    assert_problem(form, "unsupported-media-type")


# --- Open Inference Protocol V2 -------------------------------------------------------------------


@pytest.fixture
def v2(url: str) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    yield client
    client.close()


def image_tensor(files: list[bytes], *, binary: bool = False) -> triton.InferInput:
    texts = np.array([base64.b64encode(file) for file in files], dtype=np.object_)
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(texts, binary_data=binary)
    return tensor


def test_v2_health_and_metadata(v2: triton.InferenceServerClient, predictor: Predictor) -> None:
    assert v2.is_server_live()
    assert v2.is_server_ready()
    assert v2.is_model_ready("tiny")
    assert not v2.is_model_ready("another")
    assert v2.get_server_metadata()["extensions"] == []
    metadata = v2.get_model_metadata("tiny")
    protocol.ModelMetadata.model_validate(metadata)
    assert metadata["versions"] == [predictor.bundle.id[:12]]


def test_v2_inference(v2: triton.InferenceServerClient, predictor: Predictor) -> None:
    files = faces(3, "JPEG")
    answer = v2.infer("tiny", [image_tensor(files)], request_id="7")
    probabilities = answer.as_numpy("probabilities")
    assert probabilities.shape == (3, 7)
    assert probabilities.dtype == np.float32
    for row, file in zip(probabilities, files, strict=True):
        expected = list(expected_scores(predictor, file).values())
        assert np.abs(row - expected).max() <= TOLERANCE
    names = np.array(predictor.class_names)[probabilities.argmax(1)]
    assert list(answer.as_numpy("label")) == list(names)
    assert answer.as_numpy("uncertain").dtype == np.bool_
    assert answer.get_response()["id"] == "7"
    protocol.InferAnswer.model_validate(answer.get_response())


def test_v2_chosen_outputs(v2: triton.InferenceServerClient) -> None:
    label = triton.InferRequestedOutput("label", binary_data=False)
    answer = v2.infer("tiny", [image_tensor(faces(1))], outputs=[label])
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label"]


def test_v2_refusals_reach_its_client(v2: triton.InferenceServerClient) -> None:
    good = faces(1)[0]
    with pytest.raises(InferenceServerException, match="image 1: not_an_image"):
        v2.infer("tiny", [image_tensor([good, b"rubbish"])])
    with pytest.raises(InferenceServerException, match="binary_data=False"):
        v2.infer("tiny", [image_tensor([good], binary=True)])
    with pytest.raises(InferenceServerException, match="'tiny' is served"):
        v2.infer("another", [image_tensor([good])])


def test_v2_shared_memory_and_the_like_are_not_there(
    v2: triton.InferenceServerClient, url: str
) -> None:
    for path in ("systemsharedmemory", "cudasharedmemory"):
        assert httpx.get(f"{url}/v2/{path}/status").status_code == 404
        assert httpx.post(f"{url}/v2/{path}/region/x/register", json={}).status_code == 404
    assert httpx.post(f"{url}/v2/repository/index").status_code == 404
    assert httpx.get(f"{url}/v2/models/tiny/stats").status_code == 404
    with pytest.raises(InferenceServerException):
        v2.register_system_shared_memory("x", "/x", 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2]},
        {"shape": [-1]},
        {"shape": [1, 2]},
        {"data": [3]},
        {"data": [["aGk="], ["aGk="]]},
        {"datatype": "UINT8"},
        {"name": "pixels"},
    ],
)
def test_v2_wrong_tensors(app: FastAPI, changes: dict[str, object]) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="], **changes}
    response = call(app, "POST", "/v2/models/tiny/infer", json={"inputs": [tensor]})
    assert response.status_code in (400, 422)
    document = protocol.V2Problem.model_validate(response.json())
    assert document.error == document.detail
