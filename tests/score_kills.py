"""Jobs that are killed and resumed: images, the processes, and what must hold after each death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from tests.bundles import tiny_bundle
from tests.scoring import assert_same_rows, image_bytes, rows_of, scored

SCRIPT = Path(__file__).with_name("kill_score.py")


def many_images(root: Path, count: int) -> Path:
    """Faces under many names: eleven files and links to them."""
    folder = root / "images"
    folder.mkdir()
    originals = []
    for number in range(11):
        path = root / f"face{number}.jpg"
        path.write_bytes(image_bytes(number, "JPEG"))
        originals.append(path)
    for number in range(count):
        place = folder / f"{number % 20:02d}"
        place.mkdir(exist_ok=True)
        os.link(originals[number % 11], place / f"{number:06d}.jpg")
    (folder / "00" / "broken.jpg").write_bytes(b"no image")
    return folder


def run_killed(
    root: Path, source: Path, points: list[dict[str, Any]], rows_a_shard: int | None
) -> list[dict[str, Any]]:
    bundle = tiny_bundle(root / "bundle")
    (root / "plan.json").write_text(json.dumps({"points": points, "rows_a_shard": rows_a_shard}))
    done = subprocess.run(
        [sys.executable, SCRIPT, bundle, source, root / "out", root / "plan.json"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(root: Path, source: Path, count: int, looks: list[dict[str, Any]]) -> None:
    *killed, last = looks
    for before, look in zip([None, *killed], killed, strict=False):
        assert look["rows"] == look["paths"], "a reader never sees an input twice"
        if before is not None:
            assert look["ledger"] >= before["ledger"], "finished shards stay finished"
        if look["success"]:
            assert look["rows"] == count
            assert look["manifest"]
    assert last["code"] == 0
    assert last["success"]
    assert last["rows"] == last["paths"] == count
    out = root / "out"
    assert not [path for path in out.rglob(".*.tmp") if path.is_file()]
    scored(source, root / "whole", Predictor(load_bundle(root / "bundle"), "fp32", "cpu"))
    assert_same_rows(rows_of(root / "whole"), rows_of(out))
