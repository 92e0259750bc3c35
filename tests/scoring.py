"""What tests of scoring share: small images, a job in one call, its rows in one table."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.data.faces import draw_faces
from fer_ray.score.options import Effort
from fer_ray.score.summary import ScoreReport

NUM_FACES = 11


@functools.cache
def faces() -> np.ndarray:
    return draw_faces(NUM_FACES, 9)[0]


def image_bytes(number: int = 0, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(faces()[number % NUM_FACES]).save(buffer, form, **options)
    return buffer.getvalue()


def scored(
    source: Path | str | list[str], out: Path, predictor: Predictor, **options: Any
) -> ScoreReport:
    """A job in this process; `Effort`'s fields may be given as they are."""
    names = {"rows_a_shard", "rows_a_chunk", "give_up_after_s", "max_error_rate", "engine"}
    effort = {name: options.pop(name) for name in names & set(options)}
    sources = source if isinstance(source, list) else [str(source)]
    settings = {"engine": "local", "num_threads": 2, "give_up_after_s": 0.2, **effort}
    return api.score(sources, out, predictor, effort=Effort(**settings), **options)


def rows_of(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))


def assert_same_rows(one: pa.Table, two: pa.Table, tolerance: float = 1e-5) -> None:
    """Everything equal, floats within a tolerance; in any order."""
    keys = ["path", "face_index"]
    first, second = (table.to_pandas().sort_values(keys, ignore_index=True) for table in (one, two))
    floats = first.select_dtypes("float32").columns
    pd.testing.assert_frame_equal(first.drop(columns=floats), second.drop(columns=floats))
    difference = np.abs(first[floats].to_numpy(float) - second[floats].to_numpy(float))
    assert np.nanmax(difference, initial=0.0) <= tolerance
