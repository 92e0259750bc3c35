"""What the schema names and this version does not build is refused, never ignored."""

import pytest

from fer_ray.config.not_yet import refuse_not_yet
from fer_ray.config.space import parse_space
from fer_ray.errors import ConfigError

TEXT = "version: 1\nname: x\nmodel: {cnn: {}}\n"

REFUSED = {
    "resources.per_trial.workers above 1": "resources.per_trial.workers=2",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_by_name(name: str) -> None:
    space = parse_space(TEXT, "a.yaml", [REFUSED[name]])
    with pytest.raises(ConfigError) as caught:
        refuse_not_yet(space)
    (problem,) = caught.value.problems
    assert problem.message.startswith(name)
    assert "not built yet" in problem.message


def test_refuses_a_config_likewise_and_everything_at_once() -> None:
    overrides = list(REFUSED.values())
    config = parse_space(TEXT, "a.yaml", overrides).base
    with pytest.raises(ConfigError) as caught:
        refuse_not_yet(config)
    assert len(caught.value.problems) == len(overrides)


def test_a_plain_config_passes() -> None:
    refuse_not_yet(parse_space(TEXT, "a.yaml"))
    refuse_not_yet(parse_space(TEXT, "a.yaml", ["data.equalize={choice: [none, clahe]}"]))
