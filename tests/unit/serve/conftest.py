"""One tiny model and its application, for all tests of the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import build_app
from fer_ray.serve.classifier import Classifier, Slot
from tests.bundles import tiny_bundle
from tests.serving import faces


@pytest.fixture(scope="package")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    directory = tmp_path_factory.mktemp("serve") / "tiny"
    return Predictor(load_bundle(tiny_bundle(directory)), "fp32")


@pytest.fixture(scope="package")
def slot(predictor: Predictor) -> Iterator[Slot]:
    classifier = Classifier(predictor, num_threads=2)
    yield Slot(classifier)
    classifier.close()


@pytest.fixture(scope="package")
def app(slot: Slot) -> FastAPI:
    return build_app(slot)


@pytest.fixture(scope="package")
def face() -> bytes:
    return faces(1)[0]
