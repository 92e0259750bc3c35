"""Nothing phones home: the commands run where every packet that leaves is caught."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.data.importing import import_images
from fer_ray.data.sample import write_sample

GATE = Path(__file__).parent / "gate.py"
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
CONFIG = """\
version: 1
name: quiet
data: {source: sample, image_size: 48, crop: 44}
model: {cnn: {channels: [4, 8], convs_per_block: 1, stem_stride: 2}}
train: {epochs: 1, batch_size: 128, device: cpu}
"""


@functools.cache
def refusal() -> str:
    """Why this machine cannot hold the test, empty where it can."""
    try:
        return "" if "error" not in gate([], home="/tmp") else "?"
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"no network namespace with a device of our own here: {said.strip()[-200:]}"


def gate(commands: list[list[str]], *, home: str) -> list[dict[str, Any]]:
    """Run commands behind the gate, as somebody whose settings forbid no telemetry."""
    forbidding = ("CI", "TF_BUILD", "JENKINS_URL", "DO_NOT_TRACK")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in forbidding and not name.startswith(("RAY_", "ORT_", "HF_"))
    }
    environment["HOME"] = home
    done = subprocess.run(
        [*UNSHARE, sys.executable, str(GATE)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


@pytest.fixture(autouse=True)
def _needs_the_gate() -> None:
    if refusal():
        pytest.skip(refusal())


def test_the_gate_sees_what_is_tried_and_swallowed(tmp_path: Path) -> None:
    connect = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError), socket.socket() as s:\n"
        "    s.settimeout(0.2); s.connect(('192.0.2.1', 443))"
    )
    look_up = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError):\n    socket.getaddrinfo('example.com', 443)"
    )
    commands = [[sys.executable, "-c", text] for text in (connect, look_up, "pass")]
    connected, looked_up, nothing = gate(commands, home=str(tmp_path))
    assert [connected["code"], looked_up["code"], nothing["code"]] == [0, 0, 0]
    assert "192.0.2.1 protocol 6" in connected["seen"]
    assert "10.9.0.1 protocol 17" in looked_up["seen"], "a look-up of a name"
    assert nothing["seen"] == []


def test_no_command_reaches_for_anything_but_this_machine(tmp_path: Path) -> None:
    (tmp_path / "quiet.yaml").write_text(CONFIG)
    write_sample(tmp_path / "faces", 120, 0)
    import_images(tmp_path / "faces", tmp_path / "data", size_px=48, on_error="stop")
    photo = tmp_path / "face.png"
    Image.fromarray(draw_faces(1, 3)[0][0]).save(photo)
    run, data = str(tmp_path / "run"), str(tmp_path / "data")
    verbs = [
        ["train", str(tmp_path / "quiet.yaml"), "--data", data, "--out", run],
        ["evaluate", run, "--data", data, "--runtime", "openvino", "--views", "ten_crop"],
        ["export", run, "--out", str(tmp_path / "quiet.onnx")],
        ["predict", str(photo), "--bundle", run, "--runtime", "onnxruntime"],
        ["score", str(tmp_path / "faces"), "--out", str(tmp_path / "scores"), "--bundle", run],
    ]
    commands = [[sys.executable, "-m", "fer_ray", *verb] for verb in verbs]
    for verb, result in zip(verbs, gate(commands, home=str(tmp_path)), strict=True):
        assert result["code"] == 0, (verb, result["text"])
        assert result["seen"] == [], (verb, result["seen"])
    assert (tmp_path / "scores" / "_SUCCESS").is_file()
    assert (tmp_path / "quiet.onnx").is_file()
    assert not (tmp_path / "intel").exists(), "OpenVINO's telemetry keeps its id there"
