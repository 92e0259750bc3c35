"""Spaces: all problems at once, points that always validate, grids, and cross-checks."""

import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.config.schema import Config
from fer_ray.config.space import (
    SearchSpace,
    flatten,
    load_config,
    load_space,
    parse_space,
    random_value,
)
from fer_ray.errors import ConfigError, Problem, UserError
from fer_ray.runs import yaml_text

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.yaml"))

WIDE = """\
version: 1
name: "1e5"
data:
  image_size: {choice: [48, 56]}
  crop: {int: [40, 48], step: 4}
  equalize: {choice: [none, histogram]}
  classes: {disgust: angry, fear: null}
model:
  one_of:
    cnn:
      depth: {int: [3, 5]}
      batchnorm: {choice: [all, none, [1, 2]]}
      residual: {choice: [false, true]}
      head: {choice: [[], [32], [64, 32]]}
      head_dropout: {float: [0.0, 0.5], step: 0.1}
    resnet:
      arch: {choice: [resnet18, resnet34]}
      unfreeze: {int: [0, 5]}
augment: {rotate_deg: {float: [0, 20]}, erase_p: {float: [0.0, 0.5]}}
train:
  epochs: 9
  batch_size: {choice: [64, 32]}
  ema: {choice: [0.998, null]}
  optimizer:
    one_of:
      sgd: {lr: {log: [1.0e-7, 3.0e-1]}, momentum: 0.9}
      adamw: {lr: {log: [1.0e-5, 1.0e-2]}, weight_decay: {log: [1.0e-6, 1.0e-1]}}
  schedule:
    one_of:
      cosine: {warmup_epochs: {int: [0, 2]}}
      constant: {}
"""

FINITE = """\
version: 1
name: grid
model:
  one_of:
    cnn: {depth: {int: [3, 5]}, residual: {choice: [false, true]}}
    resnet: {unfreeze: {int: [4, 5]}}
train: {batch_size: {choice: [64, 32]}}
search: {sampler: grid}
"""


@cache
def wide() -> SearchSpace:
    return parse_space(WIDE, "wide.yaml")


def problems_of(text: str, overrides: tuple[str, ...] = ()) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse_space(text, "a.yaml", overrides)
    return list(caught.value.problems)


# --- errors ---------------------------------------------------------------------------------------


def test_every_schema_error_comes_at_once_with_place_caret_and_nearest_name() -> None:
    text = """\
version: 1
name: x
data:
  image_sise: 48
  crop: 44
model:
  one_of:
    cnn:
      depth: 99
      widht: {choice: [8, 16]}
train:
  batch_size: "64"
  optimiser:
    sgd: {lr: 0.1}
"""
    problems = problems_of(text)
    assert [(p.line, p.column) for p in problems] == [(4, 3), (9, 7), (10, 7), (12, 3), (13, 3)]
    assert problems[0].message == "unknown key 'image_sise' in data (did you mean image_size?)"
    assert problems[1].message == "model.cnn.depth: must be less than or equal to 6, but got 99"
    assert problems[2].message == "unknown key 'widht' in model.cnn (did you mean width?)"
    assert problems[3].message == "train.batch_size: must be a valid integer, but got '64'"
    assert problems[4].message == "unknown key 'optimiser' in train (did you mean optimizer?)"
    caret = "a.yaml:4:3: unknown key 'image_sise' in data (did you mean image_size?)"
    assert str(problems[0]) == f"{caret}\n      image_sise: 48\n      ^"


def test_a_key_like_none_lists_what_is_known() -> None:
    (problem,) = problems_of("version: 1\nname: x\nmodel: {cnn: {}}\nkeep: {zzz: 1}\n")
    assert problem.message == "unknown key 'zzz' in keep (known: top)"


def test_missing_keys_are_told() -> None:
    assert {p.message for p in problems_of("version: 1\n")} == {
        "name is missing",
        "model is missing",
    }


def test_a_rule_of_a_section_points_at_it() -> None:
    text = "version: 1\nname: x\ndata:\n  image_size: 40\nmodel: {cnn: {}}\n"
    (problem,) = problems_of(text)
    assert problem.line == 3
    assert "crop <= image_size must hold, but got (crop=44, image_size=40)" in problem.message


@pytest.mark.parametrize(
    ("hole", "words"),
    [
        ("head_dropout: {float: [0.0, 1.0]}", "less than 1, but got 1.0"),
        ("depth: {int: [0, 3]}", "greater than or equal to 1, but got 0"),
        ("pool: {choice: [avg, max]}", "'avg' or 'flatten', but got 'max'"),
        ("batchnorm: {choice: [all, [9]]}", "batchnorm names block 9"),
    ],
)
def test_a_range_outside_the_schemas_bounds_points_at_the_hole(hole: str, words: str) -> None:
    (problem,) = problems_of(f"version: 1\nname: x\nmodel:\n  cnn:\n    {hole}\n")
    assert words in problem.message
    assert problem.line in (4, 5)


def test_a_rule_broken_in_another_branch_is_found() -> None:
    text = """\
version: 1
name: x
model: {cnn: {}}
train:
  epochs: 2
  schedule: {one_of: {constant: {}, cosine: {warmup_epochs: {int: [0, 3]}}}}
"""
    (problem,) = problems_of(text)
    assert "warmup_epochs <= epochs" in problem.message


def test_a_rule_that_only_a_combination_breaks_is_found() -> None:
    text = """\
version: 1
name: x
data: {image_size: {choice: [56, 40]}, crop: {int: [36, 52], step: 4, default: 36}}
model: {cnn: {}}
"""
    assert any("crop <= image_size" in problem.message for problem in problems_of(text))


def test_problems_of_holes_come_together() -> None:
    text = "version: 1\nname: x\nmodel: {cnn: {depth: {int: [3, 3]}, width: {choice: []}}}\n"
    assert len(problems_of(text)) == 2


def test_forbid_and_start_from_must_name_what_the_space_has() -> None:
    text = """\
version: 1
name: x
model: {cnn: {depth: {int: [3, 5]}}}
forbid:
  - {model.cnn.dept: 4}
search:
  start_from:
    - {model.cnn.dept: 4}
    - {model.cnn.depth: 9}
    - {train.batch_size: 64}
"""
    problems = problems_of(text)
    assert [p.line for p in problems] == [5, 8, 9, 10]
    assert "did you mean model.cnn.depth?" in problems[0].message
    assert "did you mean model.cnn.depth?" in problems[1].message
    assert problems[2].message == "model.cnn.depth: 9 is outside 3 to 5"
    assert problems[3].message.startswith("train.batch_size is not searched here")


def test_forbid_may_name_fixed_values_and_branches_of_any_one_of() -> None:
    text = WIDE + "forbid: [{model: resnet, train.optimizer.sgd.momentum: 0.9}]\n"
    space = parse_space(text, "a.yaml")
    assert space.is_forbidden({"model": "resnet"})
    assert not space.is_forbidden({"model": "cnn"})
    assert not space.is_forbidden({"model": "resnet", "train.optimizer": "adamw"})


def test_forbidden_defaults_are_a_problem() -> None:
    text = "version: 1\nname: x\nmodel: {cnn: {depth: {int: [3, 5]}}}\n"
    (problem,) = problems_of(text + "forbid: [{model.cnn.depth: 4}]\n")
    assert "the defaults themselves are forbidden" in problem.message


def test_a_point_for_another_branch_does_nothing_and_says_so() -> None:
    with pytest.raises(UserError, match=r"model\.cnn\.depth does nothing"):
        wide().check_point({"model": "resnet", "model.cnn.depth": 4})


# --- points ---------------------------------------------------------------------------------------


def test_addresses_never_contain_one_of() -> None:
    addresses = [hole.address for hole in wide().holes]
    assert "train.optimizer.adamw.weight_decay" in addresses
    assert not any("one_of" in address for address in addresses)
    assert len(set(addresses)) == len(addresses)


def test_the_base_is_every_hole_at_its_default() -> None:
    base = wide().base
    assert base.model.cnn is not None
    assert base.model.cnn.depth == 4
    assert base.train.optimizer.sgd is not None
    assert base.train.optimizer.adamw is None
    assert base.train.batch_size == 64


def test_check_point_completes_with_defaults() -> None:
    params = wide().check_point({"model": "resnet", "model.resnet.unfreeze": 2})
    assert params["model.resnet.unfreeze"] == 2
    assert params["model.resnet.arch"] == "resnet18"
    assert params["train.optimizer"] == "sgd"
    assert not any(address.startswith("model.cnn") for address in params)


@given(st.integers(0, 2**32))
def test_a_random_point_always_validates_and_survives_its_file(seed: int) -> None:
    space = wide()
    generator = random.Random(seed)
    params = space.draw(lambda hole: random_value(hole, generator))
    for hole in space.holes:
        reached = all(params.get(address) == branch for address, branch in hole.when)
        assert (hole.address in params) == reached, "a point holds its active holes and no other"
        if reached:
            assert hole.contains(params[hole.address])
    config = space.resolve(params)
    values = flatten(config.training_part())
    for address, value in params.items():
        assert values[address] == (list(value) if isinstance(value, tuple) else value)

    again = Config.model_validate(config.training_part())
    assert again == config
    assert again.fingerprint() == config.fingerprint()

    from_file = parse_space(yaml_text(config.training_part()), "resolved.yaml").base
    assert from_file == config
    assert from_file.fingerprint() == config.fingerprint()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_spaces_are_valid(path: Path) -> None:
    assert load_space(path).holes


def test_a_resolved_file_is_a_config(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml_text(wide().base.training_part()), encoding="utf-8")
    assert load_config(path) == wide().base


def test_load_config_refuses_holes_by_listing_them(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(FINITE, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    messages = [problem.message for problem in caught.value.problems]
    addresses = [hole.address for hole in load_space(path).holes]
    assert len(messages) == len(addresses) == 5
    for address, message in zip(addresses, messages, strict=True):
        assert message.startswith(f"{address} is a hole")
    overrides = [message.rsplit("-s ", 1)[1] for message in messages]
    chosen = load_config(path, [text for text in overrides if "resnet" not in text])
    assert chosen == load_space(path).base, "the overrides it proposes are its defaults"


def test_a_failed_resolve_names_addresses() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: must be greater than or equal to 1"):
        wide().resolve({"train.batch_size": 0})


def test_random_values_of_log_are_uniform_in_the_logarithm() -> None:
    (hole,) = [h for h in wide().holes if h.address == "train.optimizer.adamw.lr"]
    generator = random.Random(0)
    values = [random_value(hole, generator) for _ in range(2000)]
    assert all(1e-5 <= value <= 1e-2 for value in values)
    below = sum(value < 10**-3.5 for value in values) / len(values)
    assert below == pytest.approx(0.5, abs=0.05)


# --- grids ----------------------------------------------------------------------------------------


def test_the_grid_has_every_point_once() -> None:
    points = list(parse_space(FINITE, "a.yaml").grid())
    assert len(points) == (3 * 2 + 2) * 2
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    for point in points:
        assert ("model.cnn.depth" in point) == (point["model"] == "cnn")
        parse_space(FINITE, "a.yaml").resolve(point)


def test_a_grid_of_infinitely_many_points_is_refused() -> None:
    text = FINITE + "augment: {rotate_deg: {float: [0, 20]}}\n"
    (problem,) = problems_of(text)
    assert "augment.rotate_deg" in problem.message
    assert problem.line == 8
    with pytest.raises(UserError, match="finitely many"):
        list(wide().grid())


def test_a_step_makes_a_grid_finite() -> None:
    text = FINITE + "augment: {rotate_deg: {float: [0, 20], step: 10}}\n"
    assert len(list(parse_space(text, "a.yaml").grid())) == 16 * 3


# --- weight ---------------------------------------------------------------------------------------


def test_reading_a_space_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, fer_ray.config.space, fer_ray.api;"
        "heavy = {'torch', 'torchvision', 'ray', 'optuna', 'pandas', 'fastapi'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_flatten_names_branches_of_one_of_sections_only() -> None:
    tree: dict[str, Any] = {"model": {"cnn": {"depth": 3}}, "data": {"crop": 44}}
    assert flatten(tree) == {"model": "cnn", "model.cnn.depth": 3, "data.crop": 44}
