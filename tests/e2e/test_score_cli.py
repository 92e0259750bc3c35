"""`fer-ray score` as it is typed: stdin, exit codes, the line to resume, `--plan`, `--json`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.bundles import tiny_bundle
from tests.scoring import image_bytes

FER_RAY = [sys.executable, "-m", "fer_ray"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 faces (one of them none) and a bundle."""
    root = tmp_path_factory.mktemp("score cli")
    (root / "faces").mkdir()
    for number in range(40):
        (root / "faces" / f"{number:02d}.png").write_bytes(image_bytes(number))
    (root / "faces" / "07.png").write_bytes(b"no image")
    tiny_bundle(root / "bundle")
    return root


def run(place: Path, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*FER_RAY, "score", *words, "--bundle", "bundle"],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        input=stdin,
        capture_output=True,
        check=False,
    )


def test_a_list_on_standard_input(place: Path) -> None:
    names = b"".join(b"faces/%02d.png\0" % number for number in range(10))
    done = run(place, "-", "--out", "from stdin", "--json", "--report", stdin=names)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["errors"]) == (10, {"not_an_image": 1})
    assert len(pd.read_parquet(place / "from stdin")) == 10
    assert (place / "from stdin" / "_report.html").is_file()
    again = run(place, "-", "--out", "from stdin", "--resume", "--json")
    assert json.loads(again.stdout)["rows"] == 10, "standard input is not needed twice"


def test_too_many_errors_exit_4_with_the_line_to_resume(place: Path) -> None:
    done = run(place, "faces", "--out", "strict", "--max-error-rate", "0.01")
    text = done.stderr.decode()
    assert done.returncode == 4, text
    line = next(line for line in text.splitlines() if "--resume" in line).split("rate: ")[1]
    words = shlex.split(line)
    assert words[:2] == ["fer-ray", "score"]
    words[words.index("0.01")] = "1"
    again = subprocess.run(
        [*FER_RAY, *words[1:]], cwd=place, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "40 rows in strict" in again.stdout
    assert "errors: not_an_image 1" in again.stdout
    assert "SELECT label" in again.stdout


def test_ctrl_c_exits_130_and_resumes(place: Path) -> None:
    (place / "http-list.txt").write_text("http://127.0.0.1:9/nobody.png\n")
    process = subprocess.Popen(
        [*FER_RAY, "score", "faces", "http-list.txt", "--out", "stopped", "--bundle", "bundle"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (place / "stopped" / "_job.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)  # it now waits for an address that nobody answers
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=90)
    assert process.returncode == 130, text
    assert "--resume" in text
    assert not (place / "stopped" / "_SUCCESS").exists()


def test_plan_measures_and_writes_nothing(place: Path) -> None:
    done = run(place, "faces", "--out", "planned", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["num_items"], plan["counted_all"], plan["faults"]) == (40, True, 1)
    assert plan["bottleneck"] in ("fetch", "decode", "inference")
    assert min(plan["fetch_s"], plan["decode_s"], plan["inference_s"], plan["rate"]) > 0
    assert plan["seconds"] == pytest.approx(40 / plan["rate"])
    assert plan["requests"] == 0
    assert not (place / "planned").exists()
    text = run(place, "faces", "--out", "planned", "--plan").stdout.decode()
    assert "bottleneck: " in text
    refused = run(place, "-", "--out", "planned", "--plan")
    assert refused.returncode == 2
