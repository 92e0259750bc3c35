"""`fer-ray train --workers 2`: two real processes, and the same network as one process trains."""

from __future__ import annotations

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


def test_two_workers_train_what_one_process_trains(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    weights = {}
    for workers in (1, 2):
        done = subprocess.run(
            [FER_RAY, "train", "config.yaml", "--out", f"run{workers}", "--workers", str(workers)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "epoch   3" in done.stderr
        weights[workers] = load_file(tmp_path / f"run{workers}" / "best" / "model.safetensors")
    for name, one in weights[1].items():
        torch.testing.assert_close(weights[2][name], one, rtol=1e-4, atol=1e-6, msg=name)
