"""What a job's rows hold, and how its sources are read: the part of a job that must not change."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from fer_ray.errors import UserError

MAX_MAX_PIXELS = 178_956_970
"""Above it Pillow itself takes an image for a bomb."""


@dataclass(frozen=True)
class RowOptions:
    """What every row holds; the same for a whole job, resumed or not.

    Attributes:
        faces: `none` = the image is the face; `haar` or `yunet:PATH` = one row a face found.
        face_margin_frac: added to each side of a box; None takes the detector's own.
        top_k: the best so many classes also as lists (`top_labels`, `top_scores`); None = no lists.
        hash: the sha256 of each file's bytes.
        hash_paths: the sha256 of each path in place of the path.
        embeddings: the network's penultimate features.
        labels_from_folders: the parent folder's name as `true_label`, where it is a class.
        max_pixels: larger images are refused; None takes the decoder's bound.
    """

    faces: str = "none"
    face_margin_frac: float | None = None
    top_k: int | None = None
    hash: bool = False
    hash_paths: bool = False
    embeddings: bool = False
    labels_from_folders: bool = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        margin = self.face_margin_frac
        if margin is not None and not 0 <= margin <= 2:
            raise UserError(f"0 <= face margin <= 2 must hold, but got {margin}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top-k must be at least 1, but got {self.top_k}")
        if self.max_pixels is not None and not 1 <= self.max_pixels <= MAX_MAX_PIXELS:
            raise UserError(
                f"1 <= max-pixels <= {MAX_MAX_PIXELS:,} must hold, but got {self.max_pixels:,}"
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SourceOptions:
    """How tables among the sources are read.

    Attributes:
        path_column: of CSV and Parquet; None = `path`.
        bytes_column: of Parquet whose cells are images; None = the cells are paths.
        keep_columns: go along into the rows.
    """

    path_column: str | None = None
    bytes_column: str | None = None
    keep_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.path_column is not None and self.bytes_column is not None:
            raise UserError("a table has a path column or a bytes column, not both")


@dataclass(frozen=True)
class Effort:
    """How a job is worked on; may differ from one resume to the next, never the rows.

    Attributes:
        engine: `auto`, `local` (this process) or `ray`.
        num_threads: that decode in this process; None = one a core.
        reads_in_flight: for object storage and HTTP, a process.
        rows_a_shard: None = few at first, more as the job grows.
        rows_a_chunk: decoded and classified at once.
        give_up_after_s: a transient fault is borne so long.
        max_error_rate: a job with a larger share of error rows stops.
        gpu_share: of a GPU that one scoring actor takes, where there is one.
        address: of a Ray cluster, on which the job then runs; None = a Ray here, or RAY_ADDRESS.
    """

    engine: str = "auto"
    num_threads: int | None = None
    reads_in_flight: int = 64
    rows_a_shard: int | None = None
    rows_a_chunk: int = 256
    give_up_after_s: float = 60.0
    max_error_rate: float = 1.0
    gpu_share: float = 0.5
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ("auto", "local", "ray"):
            raise UserError(f"--engine is auto, local or ray, but got {self.engine!r}")
        if self.engine == "local" and self.address is not None:
            raise UserError(f"--engine local has no use for --address {self.address}")
        if not 0 <= self.max_error_rate <= 1:
            raise UserError(f"0 <= max-error-rate <= 1 must hold, but got {self.max_error_rate}")
        for name in ("num_threads", "rows_a_shard", "rows_a_chunk", "reads_in_flight"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name.replace('_', '-')} must be at least 1, but got {value}")

    @property
    def threads(self) -> int:
        return self.num_threads or os.cpu_count() or 1
