"""A command line on its way to a cluster: what goes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_ray.cluster.jobs import Command, check_command, is_dashboard, words_to_hand_over
from fer_ray.errors import UserError

URL = "http://127.0.0.1:8265"


@pytest.mark.parametrize(
    "said",
    [
        ["tune", "a.yaml", "--address", URL, "--out", "/shared/a", "--detach"],
        ["tune", "--detach", "a.yaml", f"--address={URL}", "--out", "/shared/a"],
    ],
)
def test_where_it_runs_is_no_part_of_the_command(said: list[str]) -> None:
    assert words_to_hand_over(said) == ("tune", "a.yaml", "--out", "/shared/a")


@pytest.mark.parametrize(
    ("address", "does"),
    [(URL, True), ("https://ray.example:443", True), ("10.0.0.1:6379", False), (None, False)],
)
def test_dashboards(address: str | None, does: bool) -> None:
    assert is_dashboard(address) is does


@pytest.mark.parametrize("place", ["/shared/runs/a", "s3://bucket/faces", "sample"])
def test_places_that_mean_the_same_there(place: str) -> None:
    check_command(Command(("tune",), places=(("--out", place),)))


@pytest.mark.parametrize("place", ["runs/a", "./a", "-", "~/a"])
def test_places_that_do_not(place: str) -> None:
    with pytest.raises(UserError, match="relative to this machine") as caught:
        check_command(Command(("tune",), places=(("--out", place),)))
    assert "/shared/" in str(caught.value)


def test_no_archive_travels_as_a_space(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("version: 1\n")
    check_command(Command(("tune",), upload=space))
    with space.open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(UserError, match="no YAML file"):
        check_command(Command(("tune",), upload=space))
