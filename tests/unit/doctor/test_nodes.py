"""What the doctor and `--address` make of the answers of nodes."""

from __future__ import annotations

import socket

import pytest

from fer_ray.cluster.join import check_address, reason
from fer_ray.cluster.nodes import Node, Versions, different
from fer_ray.doctor.cluster import NodeReport, faults_of_nodes
from fer_ray.errors import UserError

MINE = Versions("2.60.0", "3.11.14", "0.1.0")


def node(number: int) -> Node:
    return Node(f"{number:032x}", f"host-{number}", number == 0, {"CPU": 4.0})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Versions("2.59.0", "3.11.14", "0.1.0"), "Ray 2.59.0"),
        (Versions("2.60.0", "3.11.9", "0.1.0"), "Python 3.11.9"),
        (Versions("2.60.0", "3.11.14", "0.0.9"), "fer-ray 0.0.9"),
        (Versions("2.60.0", "3.11.14", None), "fer-ray missing"),
        (TimeoutError(), "does not answer (TimeoutError)"),
    ],
)
def test_a_node_that_runs_something_else_is_named(answer: Versions | Exception, said: str) -> None:
    nodes = [node(0), node(1)]
    ((id_, text),) = different(nodes, {nodes[0].id: MINE, nodes[1].id: answer}, MINE)
    assert id_ == nodes[1].id
    assert text.startswith("host-1")
    assert said in text
    reports = [NodeReport(nodes[0], MINE), NodeReport(nodes[1], answer)]
    (fault,) = faults_of_nodes(reports, MINE)
    assert said in fault.what
    assert "one image" in fault.remedy


@pytest.mark.parametrize(("off", "error", "wrong"), [(1.5, 0.1, 0), (-5.0, 0.1, 1), (5.0, 4.0, 0)])
def test_clocks(off: float, error: float, wrong: int) -> None:
    faults = faults_of_nodes([NodeReport(node(0), MINE, off, error)], MINE)
    assert len(faults) == wrong
    if wrong:
        assert "-5.0 s" in faults[0].what
        assert "time server" in faults[0].remedy


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:99999", "a b:1", "host:6379/x", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        check_address(address)


def test_ray_client_is_refused_with_the_way_that_works() -> None:
    with pytest.raises(UserError, match="Ray Client") as caught:
        check_address("ray://head:10001")
    assert "--address http://HEAD:8265" in str(caught.value)


def test_a_head_that_does_not_answer_is_said_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(UserError, match="no Ray cluster answers"):
            check_address(f"127.0.0.1:{port}")  # bound, and nobody listens
        probe.listen()
        check_address(f"127.0.0.1:{port}")


def test_ray_s_own_words_for_other_versions() -> None:
    """As Ray's own check says it."""
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as caught:
        check_version_info(
            {"ray_version": "2.59.0", "python_version": "3.11.2"}, "node 10.0.0.1:6379"
        )
    error = reason("10.0.0.1:6379", caught.value)
    assert isinstance(error, UserError)
    assert "it runs Ray 2.59.0, Python 3.11.2; here Ray 2.60.0" in error.message
    assert "--address http://HEAD:8265" in str(error.remedy)
