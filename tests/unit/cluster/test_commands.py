"""Every command that `cluster/` tells people to type is one that fer-ray has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from tests.unit.cluster.files import CLUSTER, commands

FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())


def parse(words: list[str]) -> None:
    """By the command line's own parser; nothing is run."""
    from fer_ray.cli.main import app

    command = typer.main.get_command(app)
    context = command.make_context("fer-ray", list(words), resilient_parsing=False)
    while hasattr(command, "commands"):
        name, *rest = [*context._protected_args, *context.args]
        command = command.commands[name]
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_parse(path: Path) -> None:
    for words in commands(path):
        if path.suffix != ".md" and len(words) == 1:
            words = [*words, "--help"]  # it is only named
        try:
            parse(words)
        except typer.Exit:
            pass  # of --help
        except Exception as error:
            raise AssertionError(f"fer-ray {' '.join(words)}: {error!r}") from error


def test_the_parser_finds_them_and_does_refuse() -> None:
    found = [words[0] for path in FILES for words in commands(path)]
    assert {"tune", "score", "serve", "serve-key", "resume", "stop", "doctor", "data"} <= set(found)
    for wrong in (["tune"], ["score", "faces", "--to", "x"], ["searching"], ["data", "fetch"]):
        with pytest.raises(Exception, match=r".+"):
            parse(wrong)


def test_what_is_to_be_replaced_is_explained() -> None:
    readme = (CLUSTER / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        for name in set(re.findall(r"REPLACE_[A-Z0-9_]*[A-Z0-9]", path.read_text("utf-8"))):
            assert f"`{name}`" in readme, f"{name} of {path.name}"


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # The verifier wants the program and the user to be there; neither is on this machine.
    text = (CLUSTER / "fer-ray-serve.service").read_text(encoding="utf-8")
    text = text.replace("/opt/fer-ray/bin/fer-ray", "/bin/true")
    unit = tmp_path / "fer-ray-serve.service"

    def faults(of: str) -> list[str]:
        unit.write_text(of, encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
        )
        return [line for line in done.stderr.splitlines() if "fer-ray-serve.service" in line]

    assert faults(text) == []
    assert faults(text.replace("KillMode=mixed", "KilMode=mixed")) != []
