"""The deployment on the session's Ray, through Serve's proxy and a real socket.

Direct ingress and the outermost middleware want variables set before Ray starts:
tests/e2e/test_serve_cli.py has those.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from fer_ray import api
from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from tests.bundles import tiny_bundle
from tests.scoring import rows_of, scored
from tests.serving import assert_problem, assert_same_scores, expected_scores, faces

pytestmark = pytest.mark.usefixtures("ray_session")

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    directory = tmp_path_factory.mktemp("serve") / "tiny"
    return Predictor(load_bundle(tiny_bundle(directory)), "fp32")


@pytest.fixture(scope="module")
def client(ray_session: None, predictor: Predictor) -> Iterator[httpx.Client]:
    from ray import serve

    from fer_ray.serve.endpoint import Endpoint, free_port
    from fer_ray.serve.settings import Settings
    from fer_ray.serve.start import deploy, start_serve, wait_until_ready

    port = free_port("127.0.0.1")
    settings = Settings(precision="fp32", num_threads=1)
    # Two replicas at most: without direct ingress, which wants variables set before Ray starts.
    endpoint = Endpoint("127.0.0.1", port, 1, 2, False, None, None, settings)
    start_serve(endpoint, port)
    deploy(endpoint, predictor.bundle)
    url = f"http://127.0.0.1:{port}"
    wait_until_ready(url)
    with httpx.Client(base_url=url, timeout=30) as opened:
        yield opened
    serve.shutdown()


def test_every_way_in_gives_the_predictors_scores(
    client: httpx.Client, predictor: Predictor
) -> None:
    first, second = faces(2, "JPEG")
    encoded = [base64.b64encode(file).decode() for file in (first, second)]
    singles = [
        client.post("/v1/predict", content=first, headers=JPEG),
        client.post("/v1/predict", files={"file": ("face.jpg", first)}),
        client.post("/v1/predict", json={"inputs": encoded[0]}),
    ]
    for response in singles:
        assert response.status_code == 200, response.text
        assert_same_scores(response.json(), expected_scores(predictor, first))
    answer = client.post("/v1/predict/batch", json={"inputs": [encoded[0], "?", encoded[1]]})
    results = answer.json()["results"]
    assert_same_scores(results[0], expected_scores(predictor, first))
    assert results[1]["problem"]["type"] == "/problems/invalid-base64"
    assert_same_scores(results[2], expected_scores(predictor, second))


def test_score_predict_and_every_way_of_asking_agree(
    client: httpx.Client, predictor: Predictor, tmp_path: Path
) -> None:
    """One Predictor, one decoder: offline and online say the same, in fp32, to 1e-5."""
    folder = tmp_path / "faces"
    folder.mkdir()
    paths = [folder / f"{number:02}.jpg" for number in range(32)]
    files = faces(32, "JPEG")
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    scored(folder, tmp_path / "out", predictor)
    rows = {row["path"]: row for row in rows_of(tmp_path / "out").to_pylist()}
    expected = [
        {name: rows[str(path)][f"p_{name}"] for name in predictor.class_names} for path in paths
    ]
    for number, answer in enumerate(api.predict(predictor, paths)):
        assert_same_scores(answer, expected[number])

    def post(file: bytes) -> httpx.Response:
        return client.post("/v1/predict", content=file, headers=JPEG)

    singly = [post(file) for file in files]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(post, files))
    for responses in (singly, together):
        for response, scores in zip(responses, expected, strict=True):
            assert_same_scores(response.json(), scores)
    forms = [("files", (path.name, file)) for path, file in zip(paths, files, strict=True)]
    results = client.post("/v1/predict/batch", files=forms).json()["results"]
    for result, scores in zip(results, expected, strict=True):
        assert_same_scores(result, scores)


def test_refusals(client: httpx.Client) -> None:
    face = faces(1)[0]
    too_large = client.post("/v1/predict", content=bytes(10_000_001), headers=JPEG)
    assert_problem(too_large, "body-too-large")
    text = client.post("/v1/predict", content=face, headers={"content-type": "text/plain"})
    assert_problem(text, "unsupported-media-type")
    assert_problem(
        client.post("/v1/predict", content=face[:500], headers=JPEG), "undecodable-image"
    )
    assert_problem(client.get("/nope"), "not-found")
    assert_problem(client.put("/v1/predict"), "method-not-allowed")
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/v1/models").json()["models"][0]["name"] == "tiny"
