"""Runs of `fer-ray train`: interrupted, gone on with, and refused where something changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fer_ray import api, training_run
from fer_ray.errors import InterruptedRunError, UserError
from fer_ray.training.epoch_result import EpochResult

CONFIG = """\
version: 1
name: again
data: {source: sample, image_size: 20, crop: 16}
model: {cnn: {channels: [4], convs_per_block: 1}}
train: {epochs: 4, batch_size: 600, device: cpu, precision: fp32, ema: 0.9}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(training_run, "CHECKPOINT_EVERY_S", 0.0)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def interrupt_after(epoch: int) -> Callable[[EpochResult], None]:
    """Ctrl-C while the epoch after `epoch` trains."""

    def on_epoch(result: EpochResult) -> None:
        if result.epoch == epoch + 1:
            raise KeyboardInterrupt

    return on_epoch


def interrupted(config: Path, out: Path, epoch: int) -> InterruptedRunError:
    with pytest.raises(InterruptedRunError) as caught:
        api.train(config, out=out, on_epoch=interrupt_after(epoch), num_threads=1)
    return caught.value


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "best" / "model.safetensors")


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(config: Path, tmp_path: Path, epoch: int) -> None:
    whole = api.train(config, out=tmp_path / "whole", num_threads=1)
    stopped = interrupted(config, tmp_path / "run", epoch)
    assert stopped.exit_code == 130
    assert stopped.remedy == f"To go on: fer-ray resume {tmp_path / 'run'}"
    assert ("its checkpoint is kept" in stopped.message) == (epoch > 0)
    said: list[str] = []
    epochs: list[int] = []
    again = api.resume_train(
        tmp_path / "run",
        num_threads=1,
        say=said.append,
        on_epoch=lambda row: epochs.append(row.epoch),
    )
    assert epochs == list(range(epoch + 1, 5)), "at most one checkpoint interval is lost"
    assert (f"going on after epoch {epoch} of 4" in said) == (epoch > 0)
    one, two = weights(whole.path), weights(again.path)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [row["val_loss"] for row in again.curve] == [row["val_loss"] for row in whole.curve]
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "curves.png").is_file()
    assert not list((tmp_path / "run").rglob("checkpoint.safetensors"))


def test_a_finished_run_is_not_trained_again(config: Path, tmp_path: Path) -> None:
    api.train(config, out=tmp_path / "run", num_threads=1)
    with pytest.raises(UserError, match="is finished") as caught:
        api.resume_train(tmp_path / "run")
    assert "another --out" in str(caught.value.remedy)


def test_a_changed_config_is_refused(config: Path, tmp_path: Path) -> None:
    interrupted(config, tmp_path / "run", 1)
    resolved = tmp_path / "run" / "trials" / "0" / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("epochs: 4", "epochs: 5"))
    with pytest.raises(UserError, match="is not the config that the run began with"):
        api.resume_train(tmp_path / "run")


def test_changed_data_are_refused(config: Path, tmp_path: Path) -> None:
    interrupted(config, tmp_path / "run", 1)
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    assert record["data_fingerprint"] == "sample"
    path.write_text(json.dumps({**record, "data_fingerprint": "0123456789abcdef"}))
    with pytest.raises(UserError, match="the data set is another one"):
        api.resume_train(tmp_path / "run")


def test_a_search_is_not_resumed_as_a_training(config: Path, tmp_path: Path) -> None:
    interrupted(config, tmp_path / "run", 1)
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"train"', '"tune"'))
    with pytest.raises(UserError, match="is a run of `fer-ray tune`"):
        api.resume_train(tmp_path / "run")
    with pytest.raises(UserError, match="is not a run"):
        api.resume_train(tmp_path)


def test_a_damaged_checkpoint_is_refused(config: Path, tmp_path: Path) -> None:
    interrupted(config, tmp_path / "run", 1)
    (checkpoint,) = (tmp_path / "run").rglob("checkpoint.safetensors")
    data = bytearray(checkpoint.read_bytes())
    data[-3] ^= 4
    checkpoint.write_bytes(bytes(data))
    with pytest.raises(UserError, match="was changed or damaged"):
        api.resume_train(tmp_path / "run")


def test_a_run_that_died_before_it_pointed_at_its_bundle_only_points(
    config: Path, tmp_path: Path
) -> None:
    report = api.train(config, out=tmp_path / "run", num_threads=1)
    (tmp_path / "run" / "best").unlink()
    again = api.resume_train(tmp_path / "run", num_threads=1)
    assert again.bundle_id == report.bundle_id
    assert (tmp_path / "run" / "best").exists()
