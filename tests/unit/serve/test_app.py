"""The HTTP API without a socket and without Ray, on a real Predictor."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from fer_ray.bundle.predictor import Predictions, Predictor
from fer_ray.serve import protocol
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.limits import Limits
from tests.serving import (
    assert_envelope,
    assert_problem,
    assert_same_scores,
    call,
    expected_scores,
    faces,
)

PNG = {"content-type": "image/png"}


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- answers --------------------------------------------------------------------------------------


def test_raw_multipart_and_json_give_the_predictors_scores(
    app: FastAPI, predictor: Predictor, face: bytes
) -> None:
    expected = expected_scores(predictor, face)
    answers = [
        call(app, "POST", "/v1/predict", content=face, headers=PNG),
        call(app, "POST", "/v1/predict", content=face),  # no media type: octets
        call(app, "POST", "/v1/predict", files={"file": ("face.png", face, "image/png")}),
        call(app, "POST", "/v1/predict", json={"inputs": base64_of(face)}),
    ]
    for response in answers:
        assert response.status_code == 200, response.text
        assert_envelope(response)
        answer = response.json()
        protocol.PredictAnswer.model_validate(answer)
        assert_same_scores(answer, expected)
        assert answer["model"] == {"name": "tiny", "id": predictor.bundle.id}
        assert answer["request_id"] == response.headers["x-request-id"]


def test_top_k_from_query_and_json(app: FastAPI, face: bytes) -> None:
    raw = call(app, "POST", "/v1/predict?top_k=2", content=face, headers=PNG).json()
    body = {"inputs": base64_of(face), "parameters": {"top_k": 3}}
    document = call(app, "POST", "/v1/predict", json=body).json()
    everything = call(app, "POST", "/v1/predict?top_k=99", content=face, headers=PNG).json()
    assert len(raw["predictions"]) == 2
    assert len(document["predictions"]) == 3
    assert len(everything["predictions"]) == 7
    assert everything["predictions"][:2] == raw["predictions"]


def test_batch_keeps_order_and_a_bad_item_hinders_no_other(
    app: FastAPI, predictor: Predictor
) -> None:
    good = faces(40)
    inputs = [base64_of(file) for file in good]
    inputs[3] = "not base64!"
    inputs[7] = base64_of(b"not an image")
    inputs[39] = "!"
    response = call(app, "POST", "/v1/predict/batch", json={"inputs": inputs})
    assert response.status_code == 200
    document = response.json()
    protocol.BatchAnswer.model_validate(document)
    results = document["results"]
    assert len(results) == 40
    assert results[3]["problem"]["type"] == "/problems/invalid-base64"
    assert results[7]["problem"]["type"] == "/problems/undecodable-image"
    assert results[39]["problem"]["type"] == "/problems/invalid-base64"
    for index in set(range(40)) - {3, 7, 39}:
        assert_same_scores(results[index], expected_scores(predictor, good[index]))


def test_batch_of_files(app: FastAPI, predictor: Predictor) -> None:
    good = faces(3)
    files = [("files", (f"{index}.png", file)) for index, file in enumerate(good)]
    results = call(app, "POST", "/v1/predict/batch", files=files).json()["results"]
    for result, file in zip(results, good, strict=True):
        assert_same_scores(result, expected_scores(predictor, file))


def test_concurrent_requests_each_get_their_own_answer(app: FastAPI, predictor: Predictor) -> None:
    files = faces(50)

    async def send_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            posts = [client.post("/v1/predict", content=file, headers=PNG) for file in files]
            return await asyncio.gather(*posts)

    for response, file in zip(asyncio.run(send_all()), files, strict=True):
        assert_same_scores(response.json(), expected_scores(predictor, file))


def test_concurrent_batches_larger_than_a_forward_pass(app: FastAPI, predictor: Predictor) -> None:
    good = faces(70)  # 64 go through the network at once
    inputs = [base64_of(file) for file in good]
    expected = [expected_scores(predictor, file) for file in good]

    async def send_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            turned = [{"inputs": inputs[by:] + inputs[:by]} for by in (0, 1, 2)]
            posts = [client.post("/v1/predict/batch", json=body) for body in turned]
            single = client.post("/v1/predict", content=good[5], headers=PNG)
            return await asyncio.gather(*posts, single)

    *batches, single = asyncio.run(send_all())
    assert_same_scores(single.json(), expected[5])
    for by, response in enumerate(batches):
        results = response.json()["results"]
        assert len(results) == 70
        for result, wanted in zip(results, expected[by:] + expected[:by], strict=True):
            assert_same_scores(result, wanted)


def test_models_and_health(app: FastAPI, predictor: Predictor) -> None:
    (card,) = call(app, "GET", "/v1/models").json()["models"]
    protocol.ModelCard.model_validate(card)
    assert card["id"] == predictor.bundle.id
    assert card["labels"] == list(predictor.class_names)
    assert "accuracy" in card["metrics"]["validation"]
    assert card["inference"]["reason"].startswith("fp32 means torch")
    assert call(app, "GET", "/healthz").json() == {"status": "live"}
    assert call(app, "GET", "/readyz").json() == {"status": "ready"}


def test_before_the_model_is_loaded(face: bytes) -> None:
    app = build_app(Slot())
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "GET", "/readyz").headers["retry-after"] == "1"
    assert_problem(call(app, "GET", "/readyz"), "not-ready")
    assert_problem(call(app, "POST", "/v1/predict", content=face, headers=PNG), "not-ready")


# --- refusals -------------------------------------------------------------------------------------


def test_routes_and_methods(app: FastAPI) -> None:
    assert_problem(call(app, "GET", "/nope"), "not-found")
    assert_problem(call(app, "POST", "/v1/predict/"), "not-found")
    response = call(app, "GET", "/v1/predict")
    assert_problem(response, "method-not-allowed")
    assert_envelope(response)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("query", ["top_k=0", "top_k=-1", "top_k=two", "top_k=", "topk=3"])
def test_bad_query(app: FastAPI, face: bytes, query: str) -> None:
    response = call(app, "POST", f"/v1/predict?{query}", content=face, headers=PNG)
    assert "top" in assert_problem(response, "invalid-parameter")["detail"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"", "invalid-json"),
        (b"{", "invalid-json"),
        (b"[]", "invalid-json"),
        (b"[" * 100_000, "invalid-json"),
        (b"\xff\xfe", "invalid-json"),
        (b'{"inputs": 3}', "invalid-json"),
        (b'{"inputs": "aGk=", "more": 1}', "invalid-json"),
        (b'{"inputs": "aGk=", "parameters": {"top_k": 0}}', "invalid-parameter"),
        (b'{"inputs": "aGk=", "parameters": {"topk": 1}}', "invalid-parameter"),
        (b'{"inputs": "%%%"}', "invalid-base64"),
        (b'{"inputs": "data:image/png;base64,aGk="}', "invalid-base64"),
        (b'{"inputs": "\xc3\xa9"}', "invalid-base64"),
        (b'{"inputs": "aGk="}', "undecodable-image"),
        (b'{"inputs": ""}', "undecodable-image"),
    ],
)
def test_bad_json(app: FastAPI, body: bytes, name: str) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert_problem(call(app, "POST", "/v1/predict", content=body, headers=headers), name)


@pytest.mark.parametrize("body", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_undecodable_images(app: FastAPI, body: bytes) -> None:
    response = call(app, "POST", "/v1/predict", content=body, headers=PNG)
    assert_problem(response, "undecodable-image")


def test_truncated_image(app: FastAPI, face: bytes) -> None:
    response = call(app, "POST", "/v1/predict", content=face[: len(face) // 2], headers=PNG)
    assert_problem(response, "undecodable-image")


def test_too_many_pixels(app: FastAPI) -> None:
    huge = b"P5 60000 60000 255\n" + bytes(100)
    response = call(app, "POST", "/v1/predict", content=huge)
    assert_problem(response, "image-too-large")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "x"])
def test_unsupported_media_types(app: FastAPI, face: bytes, media_type: str) -> None:
    headers = {"content-type": media_type}
    for path in ("/v1/predict", "/v1/predict/batch"):
        response = call(app, "POST", path, content=face, headers=headers)
        assert_problem(response, "unsupported-media-type")


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b""),
        (FORM, b""),
        (FORM, b"--b--\r\n"),
        (FORM, b"rubbish"),
        (FORM, PART % (b"file", b"x")),  # ends before its last boundary
        (FORM, PART % (b"image", b"x") + b"--b--\r\n"),
        (FORM, b"--b\r\n\r\nx\r\n--b--\r\n"),
        (FORM, b"--b\r\n:\r\n\r\nx\r\n--b--\r\n"),
    ],
)
def test_bad_forms(app: FastAPI, content_type: str, body: bytes) -> None:
    headers = {"content-type": content_type}
    response = call(app, "POST", "/v1/predict", content=body, headers=headers)
    assert_problem(response, "invalid-multipart")


def test_two_files_for_one(app: FastAPI) -> None:
    body = 2 * (PART % (b"file", b"x")) + b"--b--\r\n"
    headers = {"content-type": FORM}
    response = call(app, "POST", "/v1/predict", content=body, headers=headers)
    assert_problem(response, "too-many-images")


# --- limits ---------------------------------------------------------------------------------------


async def _chunks(chunk: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield chunk


def test_body_is_counted_while_it_streams(slot: Slot) -> None:
    app = build_app(slot, Surroundings(limits=Limits(body_bytes=1000)))
    declared = call(app, "POST", "/v1/predict", content=b"x" * 1001, headers=PNG)
    assert_problem(declared, "body-too-large")
    streamed = call(app, "POST", "/v1/predict", content=_chunks(b"x" * 100, 11), headers=PNG)
    assert_problem(streamed, "body-too-large")
    allowed = call(app, "POST", "/v1/predict", content=_chunks(b"x" * 100, 10), headers=PNG)
    assert_problem(allowed, "undecodable-image")


def test_slow_bodies(slot: Slot) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(10)
        yield b"x"

    app = build_app(slot, Surroundings(limits=Limits(body_s=0.05)))
    response = call(app, "POST", "/v1/predict", content=slow(), headers=PNG)
    assert_problem(response, "body-too-slow")


def test_too_many_images(slot: Slot) -> None:
    app = build_app(slot, Surroundings(limits=Limits(batch_images=2)))
    response = call(app, "POST", "/v1/predict/batch", json={"inputs": ["aGk="] * 3})
    assert_problem(response, "too-many-images")
    files = [("files", ("a", b"x"))] * 3
    assert_problem(call(app, "POST", "/v1/predict/batch", files=files), "too-many-images")
    assert_problem(call(app, "POST", "/v1/predict/batch", json={"inputs": []}), "invalid-json")


@pytest.mark.parametrize("limits", [Limits(requests=2), Limits(held_bytes=2500)])
def test_overload_is_503_with_retry_after_and_passes(slot: Slot, limits: Limits) -> None:
    app = build_app(slot, Surroundings(limits=limits))
    file = faces(1)[0]
    assert 1250 < len(file) < 2500  # the second of them is one too many

    async def send_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            posts = [client.post("/v1/predict", content=file, headers=PNG) for _ in range(6)]
            return await asyncio.gather(*posts)

    responses = asyncio.run(send_all())
    refused = [response for response in responses if response.status_code != 200]
    assert 0 < len(refused) < 6
    for response in refused:
        assert_problem(response, "overloaded")
        assert response.headers["retry-after"] == "1"
    again = call(app, "POST", "/v1/predict", content=file, headers=PNG)
    assert again.status_code == 200


def test_the_largest_batch_must_fit_among_the_images_in_work() -> None:
    with pytest.raises(ValueError, match=r"at least batch_images \(8\), but got 7"):
        Limits(batch_images=8, waiting_images=7)


def test_large_batches_do_not_queue_up_behind_each_other(slot: Slot) -> None:
    app = build_app(slot, Surroundings(limits=Limits(batch_images=4, waiting_images=4)))
    files = [("files", ("a.png", file)) for file in faces(3)]
    texts = [base64.b64encode(file).decode() for file in faces(3)]
    tensor = {"name": "image", "shape": [3], "datatype": "BYTES", "data": texts}
    name = slot.classifier.predictor.bundle.contents.name  # type: ignore[union-attr]

    async def send_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(
                client.post("/v1/predict/batch", files=files),
                client.post("/v1/predict/batch", files=files),
                client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}),
                client.post("/v1/predict", content=faces(1)[0], headers=PNG),
            )

    for _ in range(2):  # what was counted is let go of
        answers = asyncio.run(send_all())
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
        assert answers[3].status_code == 200, "there is room for a single image"
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(answer.headers["retry-after"] == "1" for answer in refused)


# --- around every answer --------------------------------------------------------------------------


def test_request_ids(app: FastAPI) -> None:
    kept = call(app, "GET", "/healthz", headers={"x-request-id": "trace-1.a_B"})
    assert kept.headers["x-request-id"] == "trace-1.a_B"
    for unusable in ("", "a b", "x" * 129, "<script>"):
        response = call(app, "GET", "/healthz", headers={"x-request-id": unusable})
        assert response.headers["x-request-id"] not in ("", unusable)


class _Failing(Predictor):
    """Fails on a batch that holds an image of a given mean, and on that image alone."""

    def __init__(self, predictor: Predictor, bad_mean: float) -> None:
        self.__dict__.update(predictor.__dict__)
        self._bad_mean = bad_mean

    def predict(self, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Predictions:
        if any(image.mean() == self._bad_mean for image in images):
            raise RuntimeError("secret of the inside")
        return super().predict(images)


def test_a_failure_of_ours_is_a_problem_for_its_own_request(predictor: Predictor) -> None:
    files = faces(8)
    bad_mean = float(predictor.decode(files[5]).pixels.mean())
    classifier = Classifier(_Failing(predictor, bad_mean), num_threads=1)
    app = build_app(Slot(classifier))

    async def send_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            posts = [client.post("/v1/predict", content=file, headers=PNG) for file in files]
            return await asyncio.gather(*posts)

    responses = asyncio.run(send_all())
    classifier.close()
    assert [response.status_code for response in responses] == [200] * 5 + [500] + [200] * 2
    document = assert_problem(responses[5], "internal")
    assert "secret" not in document["detail"]


def test_openapi_names_every_status_and_resolves(app: FastAPI) -> None:
    document = call(app, "GET", "/openapi.json").json()
    assert set(document["paths"]) == {
        "/",
        "/v1/predict",
        "/v1/predict/batch",
        "/v1/models",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/infer",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert "default" not in operation["responses"], (method, path)
            assert "500" in operation["responses"], (method, path)
    predict = document["paths"]["/v1/predict"]["post"]
    assert set(predict["responses"]) == {
        "200", "400", "401", "408", "413", "415", "422", "429", "500", "503",
    }  # fmt: skip
    assert set(predict["requestBody"]["content"]) == {
        "image/*",
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }
    schemas = document["components"]["schemas"]
    references = [part.split('"')[0] for part in str(document).replace("'", '"').split('$ref": "')]
    assert all(name.split("/")[-1] in schemas for name in references[1:])
