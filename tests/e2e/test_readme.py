"""The README's commands do what it says: the block marked for it is run, word by word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]


def test_the_marked_block_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- run by a test -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", block.group(1)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "model.cnn.width" in done.stdout
    assert "happy/PublicTest" in done.stdout
    rows = pd.read_parquet(tmp_path / "scores")
    assert len(rows) == 100
    assert set(rows["status"]) == {"ok"}


def test_every_path_in_the_file_map_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    map_block = text.split("## What is where", 1)[1]
    for line in map_block.splitlines():
        match = re.match(r"^(  )?([\w./]+(?:, [\w./]+)*)\s{2,}\S", line)
        if match is None:
            continue
        base = ROOT / "fer_ray" if match.group(1) else ROOT
        for name in match.group(2).split(", "):
            assert (base / name).exists(), name
