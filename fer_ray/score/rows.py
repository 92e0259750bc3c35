"""Score rows, schema v1: one row an image, or one a face found; errors included."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fer_ray.errors import UserError
from fer_ray.images.detect import Face
from fer_ray.score.fetch import Fault
from fer_ray.score.items import Item, readable_path
from fer_ray.score.options import RowOptions

SCHEMA_VERSION = 1

_FIRST = (
    pa.field("path", pa.string(), nullable=False),
    pa.field("face_index", pa.int32(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error_type", pa.string()),
    pa.field("error", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("box_x", pa.float32()),
    pa.field("box_y", pa.float32()),
    pa.field("box_w", pa.float32()),
    pa.field("box_h", pa.float32()),
    pa.field("detector_score", pa.float32()),
)
_ANSWER = (
    pa.field("label", pa.string()),
    pa.field("score", pa.float32()),
    pa.field("margin", pa.float32()),
    pa.field("uncertain", pa.bool_()),
)


def schema(
    class_names: Sequence[str],
    options: RowOptions | None = None,
    kept: pa.Schema | None = None,
    num_features: int = 0,
) -> pa.Schema:
    """Arrow schema of the rows; one probability column a class.

    Args:
        class_names: of the bundle.
        options: what is added to the plain columns.
        kept: the user's own columns.
        num_features: length of an embedding.

    Raises:
        UserError: a kept column has the name of one of ours.
    """
    options = options or RowOptions()
    fields: list[pa.Field[Any]] = [*_FIRST, *_ANSWER]
    fields += [pa.field(f"p_{name}", pa.float32()) for name in class_names]
    if options.hash:
        fields.append(pa.field("sha256", pa.binary(32)))
    if options.labels_from_folders:
        fields.append(pa.field("true_label", pa.string()))
    if options.top_k is not None:
        fields.append(pa.field("top_labels", pa.list_(pa.string())))
        fields.append(pa.field("top_scores", pa.list_(pa.float32())))
    if options.embeddings:
        fields.append(pa.field("embedding", pa.list_(pa.float32(), num_features)))
    ours = {field.name for field in fields}
    for field in kept or ():
        if field.name in ours:
            raise UserError(
                f"the column {field.name} cannot be kept: rows have one of that name",
                "Rename it in the table, or leave it out of --keep-columns.",
            )
        fields.append(field)
    return pa.schema(fields)


@dataclass(frozen=True)
class Seed:
    """A row before it is classified.

    Attributes:
        item: whose row it is.
        face_index: 0, 1, ... from left to right.
        fault: None where there is a face to classify, or none was found.
        width_px, height_px: of the image; None where it could not be opened.
        face: where it was found; None without detection, or where none was found.
        has_pixels: whether there is something to classify.
        sha256: of the bytes; None where they could not be read or were not asked for.
    """

    item: Item
    face_index: int = 0
    fault: Fault | None = None
    width_px: int | None = None
    height_px: int | None = None
    face: Face | None = None
    has_pixels: bool = False
    sha256: bytes | None = None

    @property
    def status(self) -> str:
        if self.fault is not None:
            return "error"
        return "ok" if self.has_pixels else "no_face"


def skeleton(
    seeds: Sequence[Seed], class_names: Sequence[str], options: RowOptions, kept: pa.Schema
) -> pa.Table:
    """Everything of rows but the answers.

    Args:
        seeds: N, in order.
        class_names: known true labels.
        options: which columns.
        kept: names and types of the items' kept values.
    """
    faces = [seed.face for seed in seeds]
    columns: dict[str, Any] = {
        "path": [path_text(seed.item.path, options.hash_paths) for seed in seeds],
        "face_index": [seed.face_index for seed in seeds],
        "status": [seed.status for seed in seeds],
        "error_type": [seed.fault and seed.fault.error_type for seed in seeds],
        "error": [seed.fault and seed.fault.error for seed in seeds],
        "width": [seed.width_px for seed in seeds],
        "height": [seed.height_px for seed in seeds],
        "box_x": [face and face.x for face in faces],
        "box_y": [face and face.y for face in faces],
        "box_w": [face and face.w for face in faces],
        "box_h": [face and face.h for face in faces],
        "detector_score": [face and face.score for face in faces],
    }
    if options.hash:
        columns["sha256"] = [seed.sha256 for seed in seeds]
    if options.labels_from_folders:
        known = {name.casefold(): name for name in class_names}
        columns["true_label"] = [known.get(folder_of(seed.item.path)) for seed in seeds]
    for index, field in enumerate(kept):
        columns[field.name] = [seed.item.kept[index] for seed in seeds]
    wanted = schema(class_names, options, kept)
    fields = [field for field in wanted if field.name in columns]
    arrays = [pa.array(columns[field.name], type=field.type) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def path_text(path: str, hashed: bool) -> str:
    """A path as its row has it."""
    text = readable_path(path)
    return hashlib.sha256(text.encode("utf-8")).hexdigest() if hashed else text


def folder_of(path: str) -> str:
    """Name of the folder that holds an item, in lower case."""
    return readable_path(path).rsplit("/", 2)[-2].casefold() if path.count("/") > 1 else ""


@dataclass(frozen=True)
class Answers:
    """What the network says of M images.

    Attributes:
        probabilities: float32 [M, C].
        scores, margins: float32 [M].
        uncertain: bool [M].
        features: float32 [M, D], or None.
    """

    probabilities: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32]
    uncertain: npt.NDArray[np.bool_]
    features: npt.NDArray[np.float32] | None


def with_answers(
    rows: pa.Table, answers: Answers, wanted: pa.Schema, top_k: int | None
) -> pa.Table:
    """Fill the answers into a skeleton.

    Args:
        rows: N; M of them have the status `ok`, in the order of the answers.
        answers: M.
        wanted: the whole schema.
        top_k: see `RowOptions`.
    """
    names = [field.name[2:] for field in wanted if field.name.startswith("p_")][
        : answers.probabilities.shape[1]
    ]
    is_ok = np.asarray(rows.column("status").to_numpy(zero_copy_only=False) == "ok", dtype=bool)
    take = pa.array(np.cumsum(is_ok) - 1, mask=~is_ok)
    labels = pa.array(names, pa.string()).take(pa.array(answers.probabilities.argmax(1)))
    columns: dict[str, pa.Array[Any]] = {
        "label": labels.take(take),
        "score": pa.array(answers.scores).take(take),
        "margin": pa.array(answers.margins).take(take),
        "uncertain": pa.array(answers.uncertain).take(take),
    }
    for index, name in enumerate(names):
        values = np.ascontiguousarray(answers.probabilities[:, index])
        columns[f"p_{name}"] = pa.array(values).take(take)
    if top_k is not None:
        best = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :top_k]
        best_scores = np.take_along_axis(answers.probabilities, best, axis=1)
        best_names = np.asarray(names, dtype=object)[best].tolist()
        columns["top_labels"] = pa.array(best_names, pa.list_(pa.string())).take(take)
        columns["top_scores"] = pa.array(best_scores.tolist(), pa.list_(pa.float32())).take(take)
    if answers.features is not None:
        width = answers.features.shape[1]
        flat = pa.array(np.ascontiguousarray(answers.features).ravel(), pa.float32())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, width).take(take)
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else rows.column(field.name)
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)
