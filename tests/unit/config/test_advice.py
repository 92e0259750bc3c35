"""Spaces that are valid and will disappoint are told so; one that cannot work is refused."""

import pytest

from fer_ray.config.advice import advice
from fer_ray.config.space import SearchSpace, parse_space
from fer_ray.errors import ConfigError

TEXT = """\
version: 1
name: a
model: {cnn: {head_dropout: {float: [0.0, 0.5]}}}
train:
  epochs: 27
  schedule: {one_of: {constant: {}, cosine: {warmup_epochs: {int: [0, 2]}}}}
search: {trials: 40}
scheduler: {asha: {grace_epochs: 3}}
"""


def space(*overrides: str) -> SearchSpace:
    return parse_space(TEXT, "a.yaml", overrides)


def test_a_good_space_needs_no_advice() -> None:
    assert advice(space(), slots=4) == []
    assert advice(space("search.sampler=random", "search.trials=3"), slots=64) == []


@pytest.mark.parametrize(
    ("override", "slots", "expected"),
    [
        ("scheduler.asha.grace_epochs=2", None, "use grace_epochs: 3 or more"),
        ("scheduler.asha.grace_epochs=27", None, "no trial is ever stopped"),
        ("search.trials=10", None, "all random"),
        ("search.trials=39", 4, "wants 40"),
        ("confirm={top: 1, seeds: 1}", None, "confirm.seeds: 1 can tell nothing"),
    ],
)
def test_what_will_disappoint_is_told(override: str, slots: int | None, expected: str) -> None:
    (line,) = advice(space(override), slots)
    assert expected in line


def test_a_warm_up_that_is_off_or_elsewhere_does_not_count() -> None:
    assert advice(space("train.schedule=constant", "scheduler.asha.grace_epochs=1")) == []
    fixed = space("train.schedule={cosine: {warmup_epochs: 4}}")
    assert len(advice(fixed)) == 1
    assert advice(space("train.schedule={cosine: {warmup_epochs: 0}}")) == []


def test_one_cycle_under_asha_is_refused_where_it_stands() -> None:
    text = TEXT.replace("constant: {}", "onecycle: {}")
    with pytest.raises(ConfigError, match="onecycle and ASHA") as caught:
        parse_space(text, "a.yaml")
    (problem,) = caught.value.problems
    assert problem.line == 6
    parse_space(text, "a.yaml", ["scheduler=none"])
    with pytest.raises(ConfigError, match="onecycle and ASHA"):
        parse_space(TEXT, "a.yaml", ["train.schedule={onecycle: {}}"])
