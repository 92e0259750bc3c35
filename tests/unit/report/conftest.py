"""Evaluations of bundles whose classes and files have names made of HTML."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.prepared import PreparedSet
from tests.bundles import tiny_bundle
from tests.pages import EVIL, EVIL_NAMES
from tests.unit.data.prepared_sets import with_faults, write_prepared


@pytest.fixture(scope="session")
def evil_predictors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Predictor]:
    """Two bundles as a hostile one would look, had it passed the loader."""
    folder = tmp_path_factory.mktemp("evil")
    found = []
    for seed in (0, 1):
        bundle = load_bundle(tiny_bundle(folder / str(seed), seed=seed))
        contents = replace(bundle.contents, class_names=EVIL_NAMES, name=f"{EVIL} {seed}")
        found.append(Predictor(replace(bundle, contents=contents), "fp32", "cpu"))
    return found[0], found[1]


@pytest.fixture
def evil_data(tmp_path: Path) -> PreparedSet:
    """24 x 24 pixels; files, a group and the directory have names made of HTML."""
    halved = {
        split: (np.ascontiguousarray(images[:, ::2, ::2]), labels)
        for split, (images, labels) in with_faults().items()
    }
    changes = {"verdict": f"<b>{EVIL}</b>", "fingerprint": '"><script>'}
    place = tmp_path / "<script>alert(3)<"
    prepared = write_prepared(place, halved, names=EVIL_NAMES, changes=changes)
    for file in place.glob("part-*.parquet"):
        table = pq.read_table(file)
        groups = pa.array([f"{EVIL} {row % 2}" for row in range(len(table))])
        sources = pa.array([f"{EVIL}/{row}.png" for row in range(len(table))])
        number = table.schema.get_field_index("source")
        table = table.set_column(number, "source", sources).append_column("group", groups)
        pq.write_table(table, file)
    return prepared
