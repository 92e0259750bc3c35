"""`fer-ray train --workers 2`: two real processes, and the same network as one process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

FER_RAY = str(Path(sys.executable).with_name("fer-ray"))

# One step an epoch, and nothing that differs between one process and two: no batch norm, no
# dropout, no augmentation. 2,399 rows would be uneven; see tests/unit/training/test_group.py.
CONFIG = """\
version: 1
name: workers
data: {source: sample, image_size: 24, crop: 24}
model: {cnn: {channels: [8, 16], convs_per_block: 1, batchnorm: none, head_dropout: 0.0}}
augment:
  {flip_p: 0.0, rotate_deg: 0.0, zoom_frac: 0.0, shift_frac: 0.0, brightness_frac: 0.0,
   contrast_frac: 0.0, erase_p: 0.0}
train:
  {epochs: 3, batch_size: 2400, precision: fp32, ema: null, class_weights: balanced,
   optimizer: {sgd: {lr: 0.1}}, schedule: {constant: {}}}
"""


@pytest.mark.long
def test_what_a_worker_refuses_is_a_message_and_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    done = subprocess.run(
        [
            *(FER_RAY, "train", "config.yaml", "--out", "run", "--workers", "2"),
            *("-s", "train.batch_size=1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "fer-ray: batch_size >= workers must hold, but got (batch_size=1, workers=2)" in (
        done.stderr
    )
    assert "Traceback" not in done.stderr.split("fer-ray: ")[-1]


def started(*words: object, place: Path) -> subprocess.Popen[str]:
    """In a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [FER_RAY, *map(str, words)],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it said up to the first line with `text`."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    pytest.fail(f"ended with {process.wait()} and without {text!r}: {said}")


def test_two_workers_train_what_one_process_trains(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    weights = {}
    for workers in (1, 2):
        run = tmp_path / f"run{workers}"
        process = started(
            "train", "config.yaml", "--out", run, "--workers", workers, place=tmp_path
        )
        read_until(process, "epoch   1")
        assert not (run / "best").exists(), "an epoch is told when it ends, not at the end"
        _, rest = process.communicate(timeout=120)
        assert process.returncode == 0, rest
        assert rest.count("epoch   3  train") == 1
        weights[workers] = load_file(run / "best" / "model.safetensors")
    for name, one in weights[1].items():
        torch.testing.assert_close(weights[2][name], one, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.long
def test_ctrl_c_with_two_workers_loses_no_epoch_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("epochs: 3", "epochs: 100000"))
    run = tmp_path / "run"
    words = ("train", "config.yaml", "--out", run, "--workers", 2)
    process = started(*words, place=tmp_path)
    # A checkpoint is written every 15 s.
    read_until(process, "epoch   1")
    while not (run / "trials" / "0" / "checkpoint.safetensors").exists():
        read_until(process, "epoch")
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "interrupted, its checkpoint is kept" in rest
    assert f"To go on: fer-ray resume {run}" in rest

    again = started("resume", run, place=tmp_path)
    said = read_until(again, "going on after epoch")
    done = int(said.rsplit("going on after epoch ", 1)[1].split()[0])
    assert done > 1
    said = read_until(again, "  train loss")
    assert said.splitlines()[-1].split()[:2] == ["epoch", str(done + 1)]
    os.killpg(again.pid, signal.SIGINT)
    _, rest = again.communicate(timeout=60)
    assert again.returncode == 130, rest
