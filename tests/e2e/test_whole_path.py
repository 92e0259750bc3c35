"""Import, train, evaluate, predict, score through the command line, on synthetic faces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FER_RAY = str(Path(sys.executable).with_name("fer-ray"))

CONFIG = """\
version: 1
name: e2e
data: {crop: 40}
model: {cnn: {channels: [8, 16], convs_per_block: 1}}
train: {epochs: 2, batch_size: 50, ema: 0.9}
"""


def fer_ray(folder: Path, *words: object) -> str:
    """Run a command; gives stdout."""
    done = subprocess.run(
        [FER_RAY, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with faces, the data set made of them, and a trained run."""
    folder = tmp_path_factory.mktemp("whole path")
    (folder / "config.yaml").write_text(CONFIG)
    fer_ray(folder, "data", "sample", "faces", "--count", 500)
    table = fer_ray(folder, "data", "import", "faces", "prepared")
    assert "not FER2013 as published" in table
    fer_ray(folder, "train", "config.yaml", "--data", "prepared", "--out", "run")
    return folder


def test_score_evaluate_and_predict_agree_to_the_last_image(folder: Path) -> None:
    figures = json.loads(
        fer_ray(folder, "evaluate", "run", "--data", "prepared", "--precision", "fp32", "--json")
    )
    fer_ray(
        folder, "score", "faces/test", "--out", "scores", "--bundle", "run", "--precision", "fp32"
    )
    rows = pd.read_parquet(folder / "scores")
    truth = rows["path"].map(lambda path: Path(path).parent.name)
    assert len(rows) == figures["count"] == 100
    assert int((rows["label"] == truth).sum()) == figures["correct"]
    image = rows["path"].iloc[17]
    answer = json.loads(
        fer_ray(folder, "predict", image, "--bundle", "run", "--precision", "fp32", "--json")
    )
    by_label = {p["label"]: p["score"] for p in answer["predictions"]}
    for label, score in by_label.items():
        assert rows[f"p_{label}"].iloc[17] == pytest.approx(score, abs=1e-5)
    assert np.allclose(sum(by_label.values()), 1.0, atol=1e-5)


def test_the_test_split_is_counted(folder: Path) -> None:
    done = subprocess.run(
        [FER_RAY, "evaluate", "run", "--data", "prepared", "--split", "test"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "has no test split" in done.stderr
    assert not (folder / "prepared" / "_test_openings.jsonl").exists()


def test_commands_say_which_bundle_is_at_work(folder: Path) -> None:
    done = subprocess.run(
        [FER_RAY, "predict", "faces/test/happy", "--bundle", "run"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "bundle: e2e (" in done.stderr


def test_help_is_quick_and_lists_the_verbs(folder: Path) -> None:
    text = fer_ray(folder, "--help")
    for verb in ("check", "tune", "train", "evaluate", "predict", "score", "serve", "data"):
        assert verb in text
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, fer_ray.cli.main; print({'torch', 'ray'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "set()"


def test_how_it_was_computed_is_said_and_recorded(folder: Path) -> None:
    words = ("evaluate", "run", "--data", "prepared", "--views", "flip", "--runtime", "openvino")
    done = subprocess.run(
        [FER_RAY, *words, "--precision", "fp32", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "runtime: openvino " in done.stderr
    figures = json.loads(done.stdout)
    assert (figures["views"], figures["tta"]["views"]) == ("single", "flip")
    assert figures["inference"]["runtime"] == "openvino"
    assert set(figures["inference"]["versions"]) == {"torch", "openvino"}
    plain = json.loads(
        fer_ray(folder, "evaluate", "run", "--data", "prepared", "--precision", "fp32", "--json")
    )
    assert figures["confusion"] == plain["confusion"]
    assert figures["log_loss"] == pytest.approx(plain["log_loss"], abs=1e-5)
    assert figures["tta"]["log_loss"] != figures["log_loss"]
    fer_ray(folder, "score", "faces/test", "--out", "few", "--bundle", "run")
    manifest = json.loads((folder / "few" / "_manifest.json").read_text())
    assert manifest["inference"]["runtime"] == "torch"
    assert "would cost more than it gains" in manifest["inference"]["reason"]


def test_export_is_one_checked_file(folder: Path) -> None:
    told = json.loads(fer_ray(folder, "export", "run", "--out", "e2e.onnx", "--json"))
    assert told["images"] == ["batch", 48, 48]
    assert told["max_difference"] <= 1e-4
    assert (folder / "e2e.onnx").stat().st_size == told["bytes"]
