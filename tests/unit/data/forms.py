"""The same forty faces in every form that FER2013 comes in."""

from __future__ import annotations

import functools
import gzip
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.data.sources.naming import SPLIT_OF_PREFIX
from fer_ray.labels import EXPRESSIONS
from tests.unit.data.kaggle import NUM_IMAGES

USAGES = ("Training", "PublicTest", "Training", "PrivateTest")
"""Of the images, by number modulo 4, as in `kaggle.make_folder`."""
ALPHABETICAL = tuple(sorted(EXPRESSIONS))


@functools.cache
def faces() -> list[tuple[npt.NDArray[np.uint8], str, str]]:
    """Pixels, class name and Usage of each face."""
    images, labels = draw_faces(NUM_IMAGES, 7)
    return [
        (pixels, EXPRESSIONS[label], USAGES[number % 4])
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True))
    ]


@functools.cache
def _texts() -> list[str]:
    return [text_of(pixels) for pixels, _, _ in faces()]


def text_of(pixels: npt.NDArray[np.uint8]) -> str:
    return " ".join(map(str, pixels.ravel().tolist()))


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def csv_text(
    columns: Sequence[str] = ("emotion", "pixels", "Usage"),
    order: Sequence[str] = EXPRESSIONS,
    end: str = "\n",
) -> str:
    """A CSV with these columns, whatever blanks and case they are written with."""
    rows = [",".join(columns)]
    for number, (_, label, usage) in enumerate(faces()):
        value = {
            "emotion": str(order.index(label)),
            "pixels": _texts()[number],
            "usage": usage,
            "person": f"p{number % 5}",
        }
        rows.append(",".join(value[column.strip().lower()] for column in columns))
    return end.join(rows) + end


def write_parquet(
    path: Path,
    *,
    splits: Sequence[str] = ("train", "validation", "test"),
    order: Sequence[str] = ALPHABETICAL,
    metadata: bool = False,
    plain: bool = False,
    names: bool = False,
) -> Path:
    """A Hugging Face folder: a file a split; `plain`: img_bytes and labels instead of a struct."""
    path.mkdir()
    image, label = ("img_bytes", "labels") if plain else ("image", "label")
    for split in splits:
        rows = [
            {
                image: png(pixels) if plain else {"bytes": png(pixels), "path": f"{number}.png"},
                label: name if names else order.index(name),
                "person": f"p{number % 5}",
            }
            for number, (pixels, name, usage) in enumerate(faces())
            if SPLIT_OF_PREFIX[usage] == split
        ]
        table = pa.Table.from_pylist(rows)
        if metadata:
            features = {label: {"names": list(order), "_type": "ClassLabel"}}
            info = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": info})
        pq.write_table(table, path / f"{split}-00000-of-00001.parquet")
    return path


def write_tar(folder: Path, path: Path, mode: str = "w", seed: int = 0) -> Path:
    """Pack a folder's files in some order."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    random.Random(seed).shuffle(files)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for file in files:
            archive.add(file, file.relative_to(folder).as_posix())
    return path


def tar_of(members: dict[str, bytes], path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def gzipped(text: str, path: Path) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


def votes_text(*, nameless: Sequence[int] = ()) -> str:
    """FER+ votes for the faces: eight for the label, one contempt, one neutral."""
    from fer_ray.data.sources.votes import HEADER

    words = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
    rows = [HEADER]
    for number, (_, label, usage) in enumerate(faces()):
        votes = dict.fromkeys(HEADER.split(",")[2:], 0)
        votes["contempt"] = 1
        votes["neutral"] += 1
        votes[words.get(label, label)] += 8
        name = "" if number in nameless else f"fer{number:07d}.png"
        rows.append(",".join([usage, name, *map(str, votes.values())]))
    return "\n".join(rows) + "\n"
