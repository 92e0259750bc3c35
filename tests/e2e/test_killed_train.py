"""A training that is killed or interrupted goes on; Ctrl-C says how."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from fer_ray import api

FER_RAY = str(Path(sys.executable).with_name("fer-ray"))
CONFIG = """\
version: 1
name: killed
data: {source: sample, image_size: 20, crop: 16}
model: {cnn: {channels: [4], convs_per_block: 1}}
train: {epochs: 12, batch_size: 1200, device: cpu, precision: fp32, ema: 0.9}
"""
# A checkpoint after each epoch, instead of one every 15 s.
TRAIN = """\
import sys
from fer_ray import api, training_run
training_run.CHECKPOINT_EVERY_S = 0.0
api.train(sys.argv[1], out=sys.argv[2], num_threads=1)
"""


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(CONFIG)
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(config), str(run)])
    checkpoint = run / "trials" / "0" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "best").exists()
    epochs: list[int] = []
    api.resume_train(run, num_threads=1, on_epoch=lambda row: epochs.append(row.epoch))
    assert epochs[0] > 1
    assert epochs[-1] == 12
    whole = api.train(config, out=tmp_path / "whole", num_threads=1)
    one = load_file(run / "best" / "model.safetensors")
    two = load_file(whole.path / "best" / "model.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(CONFIG.replace("epochs: 12", "epochs: 100000"))
    with subprocess.Popen(
        [FER_RAY, "train", str(config), "--out", str(run), "--threads", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch   2"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "fer-ray: interrupted, " in rest
    assert f"To go on: fer-ray resume {run}" in rest
    assert "Traceback" not in rest
