"""Prepared sets written straight from arrays, however odd."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_ray.data.faces import draw_faces
from fer_ray.data.prepared import MANIFEST, SCHEMA, PreparedSet, open_prepared
from fer_ray.labels import EXPRESSIONS

Arrays = tuple[np.ndarray, np.ndarray]


def write_prepared(
    path: Path,
    splits: dict[str, Arrays],
    names: tuple[str, ...] = EXPRESSIONS,
    changes: dict[str, Any] | None = None,
    rows_a_part: int = 20_000,
) -> PreparedSet:
    """Write a prepared set.

    Args:
        path: the new directory.
        splits: name -> images uint8 [N, S, S] and labels int64 [N].
        names: of the classes.
        changes: keys of the manifest that are to be other than usual.
        rows_a_part: of each Parquet file.
    """
    path.mkdir(parents=True)
    seen: Counter[str] = Counter()
    ids, parts, counts, hashes = [], {}, {}, []
    for split, (images, labels) in splits.items():
        rows = []
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            stem = f"{split}-{digest[:16]}-{label}"
            ids.append(f"{stem}-{seen[stem]}")
            seen[stem] += 1
            hashes.append(digest)
            rows.append(
                {
                    "sample_id": ids[-1],
                    "image": image.tobytes(),
                    "label": int(label),
                    "label_name": names[label],
                    "source": f"{split}/{names[label]}/{number}.png",
                    "sha256": digest,
                }
            )
        starts = range(0, len(rows), rows_a_part)
        for part, start in enumerate(starts):
            table = pa.Table.from_pylist(rows[start : start + rows_a_part], schema=SCHEMA)
            pq.write_table(table, path / f"part-{split}-{part:05d}.parquet")
        parts[split] = len(starts)
        of_class = np.bincount(labels, minlength=len(names))
        counts[split] = {name: int(n) for name, n in zip(names, of_class, strict=True)}
    train = splits["train"][0] / 255
    info = {
        "format": 1,
        "class_names": list(names),
        "size_px": int(splits["train"][0].shape[-1]),
        "counts": counts,
        "parts": parts,
        "train_mean": float(train.mean()),
        "train_std": float(train.std()),
        "surplus_duplicates": len(hashes) - len(set(hashes)),
        "skipped": 0,
        "fingerprint": hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest(),
        "verdict": "not FER2013 as published",
        "source": path.name,
    }
    (path / MANIFEST).write_text(json.dumps({**info, **(changes or {})}))
    return open_prepared(path)


def three_splits(size_px: int = 48) -> dict[str, Arrays]:
    """70 faces: 42 for train, 14 each for validation and test; no two alike."""
    images, labels = draw_faces(70, 5)
    images = np.ascontiguousarray(images[:, :size_px, :size_px])
    bounds = {"train": (0, 42), "validation": (42, 56), "test": (56, 70)}
    return {split: (images[a:b].copy(), labels[a:b].copy()) for split, (a, b) in bounds.items()}


def with_faults() -> dict[str, Arrays]:
    """`three_splits` with faults planted.

    train 0, 1, 2 are one image with labels 3, 3, 4; train 3 and 4 one image with one label;
    validation 0 and test 0 are train 5; test 1 is validation 1; train 6 is nearly constant,
    validation 2 and test 2 are black; validation 3 is train 0.
    """
    splits = three_splits()
    (train, labels), (validation, _), (test, _) = splits.values()
    train[1] = train[2] = train[0]
    labels[:3] = 3, 3, 4
    train[4] = train[3]
    labels[4] = labels[3]
    validation[0] = test[0] = train[5]
    test[1] = validation[1]
    train[6] = 90
    train[6, 0, 0] = 100
    validation[2] = test[2] = 0
    validation[3] = train[0]
    return splits
