"""A trial's life in its process, without Ray: reports, checkpoints, ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fer_ray.bundle.load import load_bundle
from fer_ray.config.reads import Reads
from fer_ray.errors import UserError
from fer_ray.runs import RunDirectory
from fer_ray.search.stopping import request_stop
from fer_ray.search.trainable import TrialSetting, train_to_end
from fer_ray.training.group import Group
from fer_ray.training.loop import Training
from tests.small import small_config, small_data


class Echo(Group):
    """Rank 1 of two, alone: its peer's answers are given; nothing else is exchanged."""

    def __init__(self, answers: list[bool]) -> None:
        object.__setattr__(self, "rank", 1)
        object.__setattr__(self, "size", 1)
        object.__setattr__(self, "answers", answers)

    def main_says(self, answer: bool) -> bool:
        return bool(self.answers.pop(0))  # type: ignore[attr-defined]


def setting(run: Path, **changes: Any) -> TrialSetting:
    plain: dict[str, Any] = {
        "run_path": str(run),
        "rungs": (1, 3),
        "deadline": None,
        "target": None,
        "num_threads": 1,
        "data_name": "faces",
    }
    return TrialSetting(**{**plain, **changes})


def train(
    run: Path, trial: dict[str, Any] | None = None, group: Group | None = None, **changes: Any
) -> tuple[list[dict[str, Any]], dict[str, Any], Training]:
    reads = Reads(small_config({"train.epochs": 4}))
    training = Training(reads.config, small_data(), group=group)
    sent: list[dict[str, Any]] = []
    trial = {"number": 7, **(trial or {})}
    final = train_to_end(training, trial, reads, small_data(), setting(run, **changes), sent.append)
    return sent, final, training


def test_reports_come_at_rungs_and_the_end_brings_a_bundle(tmp_path: Path) -> None:
    sent, final, _ = train(tmp_path)
    assert [[row["epoch"] for row in report["rows"]] for report in sent] == [[1], [2, 3]]
    assert [row["epoch"] for row in final["rows"]] == [4]
    assert final["ended"] == "complete"
    assert load_bundle(tmp_path / "bundles" / "7").id == final["bundle_id"]


def test_a_trial_that_is_asked_to_stop_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    request_stop(run, "fer-ray stop")
    _, final, _ = train(tmp_path)
    assert final["ended"] == "stopped"
    assert [row["epoch"] for row in final["rows"]] == [1]
    run.stop_file.unlink()
    sent, final, training = train(tmp_path)
    assert final["ended"] == "complete"
    epochs = [row["epoch"] for report in [*sent, final] for row in report["rows"]]
    assert epochs == [1, 2, 3, 4], "the first one is told again, and trained once"
    _, _, unbroken = train(tmp_path / "other")
    assert [row["objective"] for row in training.curve] == [
        row["objective"] for row in unbroken.curve
    ]


def test_a_searched_value_that_nothing_reads_ends_the_trial_by_name(tmp_path: Path) -> None:
    params = {"model.cnn.width": 32, "train.batch_size": 16}
    with pytest.raises(UserError, match=r"^model\.cnn\.width: searched, but nothing"):
        train(tmp_path, {"params": params})
    sent, _, _ = train(tmp_path, {"params": {"train.batch_size": 16}})
    assert sent


def test_other_ranks_end_when_rank_0_does_and_write_nothing(tmp_path: Path) -> None:
    past = time.time() - 1
    _, _, training = train(tmp_path, group=Echo([False, False, True]), deadline=past)
    assert training.epoch == 2, "its own clock has no say"
    assert not list(tmp_path.iterdir())
