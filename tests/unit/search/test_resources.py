"""What a trial takes, worked out from the nodes of a cluster."""

from __future__ import annotations

import pytest

from fer_ray.config.sections.search import ResourcesConfig
from fer_ray.errors import UserError
from fer_ray.search import resources
from fer_ray.search.resources import Slots, check_request, plan_slots


def plan(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    coming: str | None = None,
    **wanted: object,
) -> Slots:
    monkeypatch.setattr(resources, "_nodes", lambda: nodes)
    monkeypatch.setattr(resources, "_autoscaler_says", lambda cpu, gpu: coming)
    monkeypatch.setattr(resources, "_request", lambda cpu, gpu, workers: nodes.append({"CPU": 8.0}))
    section = ResourcesConfig.model_validate(
        {
            "per_trial": {k: v for k, v in wanted.items() if k != "max_concurrent"},
            "max_concurrent": wanted.get("max_concurrent", "auto"),
        }
    )
    return plan_slots(section, SAID.append)


SAID: list[str] = []


@pytest.mark.parametrize(
    ("nodes", "wanted", "expected"),
    [
        ([{"CPU": 2.0}], {}, Slots(1, 0, 1, 2, None)),
        ([{"CPU": 8.0, "GPU": 2.0}], {}, Slots(1, 1, 1, 2, None)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"gpu": 0.4}, Slots(1, 0.4, 1, 4, None)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], {"cpu": 2}, Slots(2, 0, 1, 2, None)),
        ([{"CPU": 2.0}, {"CPU": 4.0}], {"max_concurrent": 3}, Slots(1, 0, 1, 3, 3)),
        ([{"CPU": 4.0}, {"CPU": 4.0}], {"workers": 3}, Slots(3, 0, 3, 2, None)),
        ([{"CPU": 0.0}, {"CPU": 4.0}], {"cpu": 0.5}, Slots(0.5, 0, 1, 8, None)),
    ],
)
def test_slots(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    wanted: dict[str, object],
    expected: Slots,
) -> None:
    assert plan(monkeypatch, nodes, **wanted) == expected


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([{"CPU": 2.0}], {"gpu": 1}),
        ([{"CPU": 2.0}, {"CPU": 2.0}], {"cpu": 3}),  # four in all, but on no node
        ([{"CPU": 2.0}], {"workers": 3}),
    ],
)
def test_what_can_never_come_is_refused(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], wanted: dict[str, object]
) -> None:
    with pytest.raises(UserError, match="join a larger cluster"):
        plan(monkeypatch, nodes, **wanted)


def test_an_autoscaler_that_can_still_deliver_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SAID.clear()
    slots = plan(monkeypatch, [{"CPU": 2.0}], "a node of type big would do", cpu=8)
    assert slots.count == 1
    (line,) = SAID
    assert "waiting for the autoscaler (a node of type big would do)" in line
    assert "8 CPUs" in line


def test_two_workers_on_one_gpu_are_refused() -> None:
    wanted = ResourcesConfig.model_validate({"per_trial": {"gpu": 0.5, "workers": 2}})
    with pytest.raises(UserError, match="two workers on one GPU"):
        check_request(wanted)
    check_request(ResourcesConfig.model_validate({"per_trial": {"gpu": 1, "workers": 2}}))
    check_request(ResourcesConfig.model_validate({"per_trial": {"gpu": 0.5}}))
