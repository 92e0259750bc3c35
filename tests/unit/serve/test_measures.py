"""Counters, drift, and the Prometheus page."""

from __future__ import annotations

import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.measures import Drift, Measures, exposition, validation_shares
from tests.serving import call, faces

PNG = {"content-type": "image/png"}


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


@pytest.fixture
def counted(predictor: Predictor) -> FastAPI:
    measures = Measures()
    classifier = Classifier(predictor, 1, measures=measures)
    return build_app(Slot(classifier), Surroundings(measures=measures))


def value(app: FastAPI, name: str, /, **labels: str) -> float | None:
    page = call(app, "GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(page.text).get((name, frozenset({**labels, "replica": "0"}.items())))


def test_what_is_counted(counted: FastAPI, predictor: Predictor) -> None:
    file = faces(1)[0]
    answer = call(counted, "POST", "/v1/predict", content=file, headers=PNG).json()
    call(counted, "POST", "/v1/predict", content=b"x", headers=PNG)
    call(counted, "GET", "/nope")
    label = answer["predictions"][0]["label"]
    route = "/v1/predict"
    assert value(counted, "fer_ray_requests_total", route=route, outcome="ok") == 1
    assert value(counted, "fer_ray_requests_total", route=route, outcome="undecodable-image") == 1
    assert value(counted, "fer_ray_requests_total", route="other", outcome="not-found") == 1
    assert value(counted, "fer_ray_predictions_total", label=label) == 1
    assert value(counted, "fer_ray_uncertain_total") == float(answer["uncertain"])
    assert value(counted, "fer_ray_batch_images_count") == 1
    assert value(counted, "fer_ray_stage_seconds_count", stage="decode") == 1
    assert value(counted, "fer_ray_stage_seconds_count", stage="receive") == 2
    assert value(counted, "fer_ray_request_seconds_count", route=route) == 2
    assert value(counted, "fer_ray_requests_in_work") == 0
    assert value(counted, "fer_ray_bundle_info", name="tiny", id=predictor.bundle.id) == 1
    assert value(counted, "fer_ray_drift_psi") is None


def test_replicas_stand_side_by_side() -> None:
    measures = Measures()
    measures.uncertain.inc(3)
    page = exposition([("a", measures.snapshot()), ('b"\\', measures.snapshot())])
    assert page.count("# TYPE fer_ray_uncertain_total counter") == 1
    found = samples(page)
    assert found["fer_ray_uncertain_total", frozenset({("replica", "a")})] == 3
    assert found["fer_ray_uncertain_total", frozenset({("replica", 'b"\\')})] == 3


def test_drift(predictor: Predictor) -> None:
    expected = validation_shares(predictor.bundle)
    assert expected is not None
    assert expected.sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    same = Drift(predictor.class_names, expected)
    for index in rng.choice(7, 1000, p=expected):
        same.add(int(index))
    psi = same.psi()
    assert psi is not None
    assert psi < 0.1
    for _ in range(1000):
        same.add(int(expected.argmin()))
    moved = same.psi()
    assert moved is not None
    assert moved > 0.25
    assert Drift(predictor.class_names, expected).psi() is None
    assert Drift(predictor.class_names, None).psi() is None
