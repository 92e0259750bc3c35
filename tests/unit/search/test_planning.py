"""What a search will cost: the arithmetic against ASHA itself, and the plan of a real space."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fer_ray.cli.main import app
from fer_ray.config.schema import Config
from fer_ray.config.space import parse_space
from fer_ray.errors import FerRayError
from fer_ray.search import plan as module
from fer_ray.search.asha import Asha, rungs_of
from fer_ray.search.corners import corner_of, draws_of
from fer_ray.search.plan import make_plan
from fer_ray.search.planning import disk_plan, epoch_seconds, expectation, time_plan
from fer_ray.search.probe import Probe, probe
from tests.searches import SPACE


def played(
    trials: int, rungs: tuple[int, ...], reduction: int, seed: int, *, steady: bool
) -> list[int]:
    """Arrivals at each rung, and completions, of one search decided by ASHA itself.

    Args:
        steady: a trial's rank at one rung is its rank at all; else each rung is drawn anew.
    """
    generator = random.Random(seed)
    asha = Asha(rungs, reduction, exempt=frozenset({0}))
    arrived = [0] * (len(rungs) + 1)
    for number in range(trials):
        quality = generator.random()
        for level, rung in enumerate(rungs):
            arrived[level] += 1
            decision = asha.decide(number, rung, quality if steady else generator.random())
            if decision is None or decision.stop:
                break
        else:
            arrived[-1] += 1
    return arrived


@pytest.mark.parametrize(
    ("trials", "grace", "reduction", "epochs"),
    [(24, 2, 3, 16), (40, 3, 3, 27), (24, 1, 2, 9), (200, 1, 4, 64), (5, 1, 2, 4)],
)
def test_the_expectation_is_what_asha_does(
    trials: int, grace: int, reduction: int, epochs: int
) -> None:
    rungs = rungs_of(grace, reduction, epochs)
    expected = expectation(trials, rungs, reduction, epochs)
    runs = [played(trials, rungs, reduction, seed, steady=False) for seed in range(2000)]
    means = [sum(run[level] for run in runs) / len(runs) for level in range(len(rungs) + 1)]
    planned = [rung.arrive for rung in expected.rungs] + [expected.complete]
    assert planned == pytest.approx(means, rel=0.06, abs=0.1)
    lengths = [b - a for a, b in zip((0, *rungs), (*rungs, epochs), strict=True)]
    epochs_played = sum(mean * length for mean, length in zip(means, lengths, strict=True))
    assert expected.epochs == pytest.approx(epochs_played, rel=0.03)
    assert expected.full_epochs == trials * epochs


def test_steady_curves_go_on_a_little_more_often() -> None:
    """The plan takes ranks at the rungs as independent; were they the same, it is not far off."""
    rungs = rungs_of(3, 3, 27)
    runs = [played(40, rungs, 3, seed, steady=True) for seed in range(1000)]
    completed = sum(run[-1] for run in runs) / len(runs)
    assert expectation(40, rungs, 3, 27).complete == pytest.approx(completed, rel=0.35)


def test_without_a_scheduler_everything_is_trained() -> None:
    expected = expectation(7, (), 3, 10)
    assert (expected.epochs, expected.complete, expected.full_epochs) == (70, 7, 70)


def test_time_is_between_all_cheap_and_all_dear() -> None:
    time = time_plan(100, 20, 2, epoch_s=(1.0, 2.0, 4.0), overhead_s=0.5, last_epochs=10)
    assert time.expected_s == pytest.approx((100 * 2 + 20 * 0.5) / 2 + 10)
    assert time.low_s < time.expected_s < time.high_s
    assert time.slot_hours == pytest.approx(2 * time.expected_s / 3600)
    alone = time_plan(100, 20, 1, epoch_s=(1.0, 2.0, 4.0), overhead_s=0.5, last_epochs=10)
    assert alone.expected_s == pytest.approx(210)


def test_seconds_lie_on_the_line_of_the_two_probes() -> None:
    assert epoch_seconds(15, (10, 1.0), (20, 3.0)) == 2.0
    assert epoch_seconds(5, (10, 1.0), (20, 3.0)) == 1.0
    assert epoch_seconds(10, (10, 1.0), (10, 3.0)) == 2.0


def test_disk_grows_with_what_is_kept() -> None:
    few, many = (disk_plan(10**6, trials=50, epochs=500, slots=2, keep=k) for k in (1, 10))
    assert many.total - few.total == 9 * (4 * 10**6 + 600_000)
    assert disk_plan(10**6, trials=3, epochs=9, slots=1, keep=50).bundles < 6 * 4_700_000


# --- a space --------------------------------------------------------------------------------------


def fake_probe(seconds: dict[str, float]) -> Any:
    def measured(config: Config, num_threads: int) -> Probe:
        width = config.model.cnn.width if config.model.cnn else 0
        second = seconds["small" if width == 16 else "large"]
        return Probe(second, second, second, 100.0, 1.0, 10**9, "cpu")

    return measured


def test_the_corners_are_the_ends_of_the_space() -> None:
    space = parse_space(SPACE, "a.yaml")
    allowed = [sized for sized in draws_of(space) if sized.why_not is None]
    cheap, dear = corner_of(space, allowed, -1), corner_of(space, allowed, 1)
    assert all(cheap.macs <= sized.macs <= dear.macs for sized in allowed)
    assert cheap.params["model.cnn.width"] == 16
    assert cheap.params["model.cnn.depth"] == 2
    assert cheap.params["train.batch_size"] == dear.params["train.batch_size"] == 128
    for sized in (cheap, dear):
        assert space.check_point(sized.params) == sized.params


def test_a_plan_without_probes(tmp_path: Path) -> None:
    space = parse_space(SPACE, "a.yaml", ["limits.params=1000000"])
    plan = make_plan(space, tmp_path / "runs" / "new", slots=4, probe=None)
    assert plan.slots == 4
    assert plan.time is None
    assert len(plan.samples) == 5
    assert plan.rejected > 0, "the ResNets have more parameters"
    assert all(corner.sized.num_params <= 1_000_000 for corner in plan.corners)
    text = "\n".join(plan.lines())
    assert "for want of both probes" in text
    assert "TPE" not in text
    assert json.loads(json.dumps(plan.as_dict()))["disk"]["total"] > 0


def test_a_grid_is_planned_without_its_forbidden_points(tmp_path: Path) -> None:
    text = """\
version: 1
name: grid
data: {source: sample}
model: {cnn: {depth: {int: [2, 3]}, head: {choice: [[], [16]]}}}
train: {batch_size: {choice: [64, 32]}}
forbid: [{model.cnn.depth: 3, train.batch_size: 32}]
search: {sampler: grid, trials: 40, repeat: 2}
"""
    plan = make_plan(parse_space(text, "a.yaml"), tmp_path, slots=2, probe=None)
    assert plan.trials == plan.expected.trials == 12
    assert "12 trials of up to" in plan.lines()[0]


def test_warnings_of_a_plan(tmp_path: Path) -> None:
    space = parse_space(SPACE, "a.yaml", ["limits.params=1000000", "stop.time_budget=60s"])
    plan = make_plan(space, tmp_path, slots=8, probe=fake_probe({"small": 2.0, "large": 5.0}))
    assert plan.time is not None
    assert plan.time.low_s < plan.time.expected_s < plan.time.high_s
    text = "\n".join(plan.warnings)
    assert "search.trials: 40 on 8 slots" in text
    assert "time_budget 60s is spent" in text

    def killed(config: Config, num_threads: int) -> Probe:
        return Probe(error="out of memory: the system killed the process")

    failed = make_plan(space, tmp_path, slots=2, probe=killed)
    assert any("dearest configuration fails: out of memory" in w for w in failed.warnings)
    assert failed.time is None
    space = parse_space(SPACE, "a.yaml", ["limits.params=10"])
    with pytest.raises(FerRayError, match="none of 100 random configurations"):
        make_plan(space, tmp_path, slots=2, probe=None)


def test_a_full_disk_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    space = parse_space(SPACE, "a.yaml")
    plan = make_plan(space, tmp_path, slots=2, probe=None)
    assert any("1 MB are free" in warning for warning in plan.warnings)


# --- the probe ------------------------------------------------------------------------------------


def test_a_real_probe_measures_in_its_own_process(tmp_path: Path) -> None:
    text = "version: 1\nname: tiny\ndata: {source: sample, image_size: 24, crop: 20}\n"
    text += "model: {cnn: {channels: [4], convs_per_block: 1}}\ntrain: {batch_size: 32}\n"
    config = parse_space(text, "a.yaml").base
    found = probe(config, 1)
    assert found.error is None
    assert found.epoch_s is not None
    assert found.low_s <= found.epoch_s <= found.high_s
    assert found.peak_bytes > 50_000_000
    # 2,400 images at the rate that it names, and the validation.
    assert found.epoch_s > 2400 / found.images_per_s
    missing = config.model_copy(
        update={"data": config.data.model_copy(update={"source": str(tmp_path / "none")})}
    )
    assert "none" in str(probe(missing, 1).error)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SPACE)
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "a.yaml"), "--no-probe", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["expected"]["rungs"][0]["rung"] == 3
    plain = CliRunner().invoke(app, ["plan", str(tmp_path / "a.yaml"), "--no-probe"])
    assert "sampled configurations" in plain.stdout
    bad = CliRunner().invoke(app, ["plan", str(tmp_path / "a.yaml"), "--slots", "0"])
    assert bad.exit_code != 0
