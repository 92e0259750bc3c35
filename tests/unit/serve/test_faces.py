"""Faces in photos, over HTTP: the same as `score --faces`, within the limits."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UserError
from fer_ray.score.options import RowOptions
from fer_ray.serve import protocol
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.client import Client, ServerRefusedError
from fer_ray.serve.detection import FaceFinder
from fer_ray.serve.endpoint import free_port
from fer_ray.serve.limits import Limits
from fer_ray.serve.measures import Measures
from fer_ray.serve.settings import Settings
from tests.hostile_bodies import hostile_requests
from tests.photos import encoded, photo
from tests.scoring import rows_of, scored
from tests.serving import TOLERANCE, assert_problem, call, listening

TWO = encoded(photo((40, 80), (400, 80)))
EMPTY = encoded(photo())
MakeApp = Callable[..., FastAPI]


@pytest.fixture(scope="module")
def make_app(predictor: Predictor) -> Iterator[MakeApp]:
    classifiers = []

    def make(**bounds: int) -> FastAPI:
        limits = Limits(**bounds)
        finder = FaceFinder("haar", predictor.source_px, 1, limits)
        measures = Measures()
        classifiers.append(Classifier(predictor, 1, measures=measures, finder=finder))
        around = Surroundings(limits, finds_faces=True, measures=measures)
        return build_app(Slot(classifiers[-1]), around)

    yield make
    for classifier in classifiers:
        classifier.close()


@pytest.fixture(scope="module")
def finding(make_app: MakeApp) -> FastAPI:
    return make_app()


def predict(app: FastAPI, data: bytes, query: str = "faces=true") -> httpx.Response:
    return call(app, "POST", f"/v1/predict?{query}", content=data)


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def best_of(face: dict[str, Any]) -> str:
    return str(face["predictions"][0]["label"])


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same face and scores; batches of other sizes round otherwise."""
    scores = [
        {entry["label"]: entry["score"] for entry in face["predictions"]} for face in (one, other)
    ]
    return one["box"] == other["box"] and scores[0] == pytest.approx(scores[1], abs=TOLERANCE)


# --- answers --------------------------------------------------------------------------------------


def test_each_face_is_answered_as_score_does(
    finding: FastAPI, predictor: Predictor, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "two.png").write_bytes(TWO)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = photo((240, 80)).transpose(Image.Transpose.ROTATE_90)
    turned.save(source / "turned.jpg", exif=exif)
    scored(source, tmp_path / "out", predictor, rows=RowOptions(faces="haar"))
    rows = rows_of(tmp_path / "out").to_pylist()
    for path, num_faces in ((source / "two.png", 2), (source / "turned.jpg", 1)):
        document = predict(finding, path.read_bytes()).json()
        protocol.PredictAnswer.model_validate(document)
        own = sorted((row["face_index"], row) for row in rows if row["path"].endswith(path.name))
        assert len(own) == len(document["faces"]) == document["faces_found"] == num_faces
        for face, (_, row) in zip(document["faces"], own, strict=True):
            for name, value in face["box"].items():
                assert value == pytest.approx(row[f"box_{name}"], abs=1e-3)
            assert face["detector_score"] == pytest.approx(row["detector_score"], rel=1e-5)
            for entry in face["predictions"]:
                assert abs(entry["score"] - row[f"p_{entry['label']}"]) <= TOLERANCE
            assert face["uncertain"] == row["uncertain"]
            assert len(face["predictions"]) == 7


def test_json_forms_and_top_k(finding: FastAPI) -> None:
    expected = predict(finding, TWO).json()["faces"]
    body = {"inputs": text_of(TWO), "parameters": {"faces": True, "top_k": 1}}
    few = call(finding, "POST", "/v1/predict", json=body).json()["faces"]
    assert [len(face["predictions"]) for face in few] == [1, 1]
    assert [best_of(face) for face in few] == [best_of(face) for face in expected]
    files = {"file": ("two.png", TWO, "image/png")}
    form = call(finding, "POST", "/v1/predict?faces=true", files=files).json()
    assert all(map(same, form["faces"], expected))
    body["parameters"] = {"faces": False}  # JSON's own goes before the address's
    assert "faces" not in call(finding, "POST", "/v1/predict?faces=true", json=body).json()
    assert "faces" not in predict(finding, TWO, "faces=false").json()


def test_the_one_answer_is_the_largest_faces(finding: FastAPI) -> None:
    canvas = photo((20, 60), size=(800, 400))
    canvas.paste(photo((0, 0), side=300, size=(300, 300)), (450, 50))
    document = predict(finding, encoded(canvas)).json()
    small, large = document["faces"]
    assert large["box"]["w"] > small["box"]["w"]
    assert document["predictions"] == large["predictions"]
    assert document["uncertain"] == large["uncertain"]


def test_without_a_face_there_is_no_answer_and_no_error(finding: FastAPI) -> None:
    response = predict(finding, EMPTY)
    assert response.status_code == 200
    document = response.json()
    protocol.PredictAnswer.model_validate(document)
    assert (document["faces"], document["faces_found"]) == ([], 0)
    assert (document["predictions"], document["uncertain"]) == ([], True)


def test_a_batch_of_photos(finding: FastAPI) -> None:
    inputs = [text_of(TWO), text_of(b"words"), text_of(EMPTY), "?"]
    body = {"inputs": inputs, "parameters": {"faces": True}}
    document = call(finding, "POST", "/v1/predict/batch", json=body).json()
    protocol.BatchAnswer.model_validate(document)
    two, words, empty, no_base64 = document["results"]
    assert all(map(same, two["faces"], predict(finding, TWO).json()["faces"]))
    assert words["problem"]["type"] == "/problems/undecodable-image"
    assert empty["faces"] == []
    assert no_base64["problem"]["type"] == "/problems/invalid-base64"


def test_the_card_and_the_counters(make_app: MakeApp, slot: Slot) -> None:
    app = make_app()
    for data in (TWO, EMPTY):
        predict(app, data)
    assert call(app, "GET", "/v1/models").json()["models"][0]["faces"] == "haar"
    page = call(app, "GET", "/metrics").text
    assert 'fer_ray_faces_bucket{le="0.0",replica="0"} 1.0' in page
    assert 'fer_ray_faces_count{replica="0"} 2.0' in page
    assert call(build_app(slot), "GET", "/v1/models").json()["models"][0]["faces"] == "none"


def test_the_client(finding: FastAPI, app: FastAPI) -> None:
    with listening(finding) as url, Client(url) as client:
        first, second = client.find_faces(TWO, top_k=2)
        assert first.x < second.x
        assert len(first.answer.scores) == 2
        assert client.find_faces(EMPTY) == []
    with (
        listening(app) as url,
        Client(url) as client,
        pytest.raises(ServerRefusedError, match="not offered here"),
    ):
        client.find_faces(TWO)


# --- refusals and limits --------------------------------------------------------------------------


def test_where_it_is_not_offered(app: FastAPI, finding: FastAPI) -> None:
    problem = assert_problem(predict(app, TWO), "invalid-parameter")
    assert "--faces" in problem["detail"]
    body = {"inputs": [text_of(TWO)], "parameters": {"faces": True}}
    assert_problem(call(app, "POST", "/v1/predict/batch", json=body), "invalid-parameter")
    assert predict(app, TWO, "faces=false").status_code == 200
    for query in ("faces=", "faces=haar", "faces=2"):
        assert_problem(predict(finding, TWO, query), "invalid-parameter")
    hub = call(finding, "POST", "/?faces=true", content=TWO)
    assert_problem(hub, "invalid-parameter")


def test_only_the_largest_of_many_faces_are_classified(make_app: MakeApp, finding: FastAPI) -> None:
    canvas = photo((20, 60), size=(800, 400))
    canvas.paste(photo((0, 0), side=300, size=(300, 300)), (450, 50))
    (face,) = (document := predict(make_app(faces=1), encoded(canvas)).json())["faces"]
    assert document["faces_found"] == 2
    assert same(face, predict(finding, encoded(canvas)).json()["faces"][1])


def test_photos_at_once_are_bounded(make_app: MakeApp) -> None:
    app = make_app(face_photos=3, waiting_photos=2)
    body: dict[str, Any] = {"inputs": [text_of(EMPTY)] * 4, "parameters": {"faces": True}}
    assert_problem(call(app, "POST", "/v1/predict/batch", json=body), "too-many-images")
    body["inputs"].pop()
    response = call(app, "POST", "/v1/predict/batch", json=body)
    assert_problem(response, "overloaded")
    assert response.headers["retry-after"] == "1"
    body["inputs"].pop()
    for _ in range(3):  # what was taken in is let go of
        assert call(app, "POST", "/v1/predict/batch", json=body).status_code == 200
    del body["parameters"]
    body["inputs"] *= 4
    assert call(app, "POST", "/v1/predict/batch", json=body).status_code == 200


def test_hostile_photos(finding: FastAPI) -> None:
    hostile = [entry for entry in hostile_requests() if entry.media_type == "image/png"]
    assert len(hostile) > 100
    with listening(finding) as url, httpx.Client(base_url=url, timeout=30) as client:
        for entry in hostile:
            response = client.post("/v1/predict?faces=true", content=entry.body)
            assert response.status_code in entry.statuses, (entry.name, response.text)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
def test_photos_of_every_mode(finding: FastAPI, mode: str) -> None:
    canvas = photo((40, 80), (400, 80))
    if mode == "I;16":
        canvas = Image.fromarray(np.asarray(canvas, dtype=np.uint16) << 8)
    else:
        canvas = (
            canvas.convert("RGB").convert(mode) if mode not in ("1", "F") else canvas.convert(mode)
        )
    document = predict(
        finding, encoded(canvas, "TIFF" if mode not in ("P", "RGBA", "LA") else "PNG")
    )
    assert document.status_code == 200, document.text
    # Two colours only, or the 216 of a palette, hide a drawn face from the detector.
    assert len(document.json()["faces"]) >= {"1": 0, "P": 1}.get(mode, 2)


# --- the operator's word --------------------------------------------------------------------------


def test_what_the_operator_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(faces: str) -> Settings:
        return api.endpoint(port=free_port("127.0.0.1"), faces=faces).settings

    assert asked("none").faces == "none"
    assert asked("haar").faces == "haar"
    with pytest.raises(UserError, match="--faces is none, haar or yunet:PATH"):
        asked("hare")
    with pytest.raises(UserError, match="there is no file"):
        asked("yunet:gone.onnx")
    monkeypatch.chdir(tmp_path)
    Path("x.onnx").write_bytes(b"words")
    assert Settings(faces="yunet:x.onnx").faces == f"yunet:{tmp_path}/x.onnx"
    with pytest.raises(UserError, match="cannot read"):
        asked("yunet:x.onnx")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r"fer-ray\[faces\]"):
        asked("haar")
