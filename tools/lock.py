"""Writes the lock in requirements/, or checks an environment against it.

    make lock                      # needs the registry; keeps every pin that still fits
    make lock LOCK_FLAGS=--upgrade # moves every pin to the newest version allowed
    python tools/lock.py --check   # is this environment exactly the lock?

Input is pyproject.toml: the dependencies and the group `dev`. One resolution (uv's universal one)
covers Linux, macOS and Windows and every Python that `requires-python` allows. It is written as

- lock-pure.txt: packages with one wheel for every platform, with the sha256 of that wheel;
- lock-platform.txt: packages with a wheel a platform, by version only: their hashes differ, and a
  CPU build of torch (2.13.0+cpu) must satisfy `torch==2.13.0` as the CUDA build does;
- constraints-cuda.txt: what the CUDA build of torch brings along, by version. Used with `-c`, which
  installs nothing, so other builds of torch do without.

uv comes from the registry (`pip install uv`); `make lock` does that in an environment of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PURE = REQUIREMENTS / "lock-pure.txt"
PLATFORM = REQUIREMENTS / "lock-platform.txt"
CUDA = REQUIREMENTS / "constraints-cuda.txt"

HEADER = "# Written by `make lock` from pyproject.toml; do not edit. {use}\n"
USES = {
    PURE: "Install with --require-hashes --no-deps.",
    PLATFORM: "Install after lock-pure.txt.",
    CUDA: "Use with -c: it installs nothing.",
}

CUDA_NAME = re.compile(r"(nvidia|cuda)-|triton$")
PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)(\s*;\s*(?P<marker>[^\\]+))?")
BESIDES_THE_LOCK = {"fer-ray", "pip"}  # ours, and what installs it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare this environment")
    parser.add_argument("--upgrade", action="store_true", help="do not keep the present pins")
    arguments = parser.parse_args()
    if arguments.check:
        faults = differences()
        for fault in faults:
            print(f"not as locked: {fault}", file=sys.stderr)
        return 1 if faults else 0
    write_lock(keep=[] if arguments.upgrade else present_pins())
    return 0


def write_lock(keep: list[str]) -> None:
    """Resolves pyproject.toml, with the lines of `keep` as constraints, and writes the files."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        settings = f"\n[tool.uv]\npackage = false\nconstraint-dependencies = {json.dumps(keep)}\n"
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (project / "pyproject.toml").write_text(text + settings, encoding="utf-8")
        # One version a package, not one a version of Python.
        run_uv(project, "lock", "--fork-strategy", "fewest")
        exported = run_uv(
            project, "export", "--frozen", "--group", "dev", "--no-emit-project",
            "--no-hashes", "--no-annotate", "--no-header",
        )  # fmt: skip
        resolved = tomllib.loads((project / "uv.lock").read_text(encoding="utf-8"))

    wheels = {package["name"]: package.get("wheels", []) for package in resolved["package"]}
    lines: dict[Path, list[str]] = {PURE: [], PLATFORM: [], CUDA: []}
    for line in exported.splitlines():
        pin = PIN.fullmatch(line.strip())
        if pin is None:
            raise SystemExit(f"error: expected name==version, but uv wrote {line!r}")
        digest = pure_wheel_digest(wheels[pin["name"]])
        if CUDA_NAME.match(pin["name"]):
            lines[CUDA].append(line)
        elif digest is not None:
            lines[PURE].append(f"{line} \\\n    --hash={digest}")
        else:
            lines[PLATFORM].append(line)
    REQUIREMENTS.mkdir(exist_ok=True)
    for path, content in lines.items():
        text = HEADER.format(use=USES[path]) + "\n".join(content) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(content)} packages")


def run_uv(project: Path, *arguments: str) -> str:
    """Runs uv in `project` and returns its stdout."""
    command = [sys.executable, "-m", "uv", "--quiet", "--no-config", *arguments]
    return subprocess.run(
        command, cwd=project, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def pure_wheel_digest(wheels: list[dict[str, Any]]) -> str | None:
    """The sha256 of a package's wheel if it has exactly one and that fits every platform.

    A package with a pure wheel beside compiled ones (charset-normalizer) gets the compiled one
    where there is one, so its hash differs between platforms.
    """
    if len(wheels) == 1 and wheels[0]["url"].endswith("-none-any.whl"):
        return str(wheels[0]["hash"])
    return None


def read_pins(path: Path) -> list[re.Match[str]]:
    """The pins of one lock file, without hashes."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [pin for line in lines if (pin := PIN.match(line))]


def present_pins() -> list[str]:
    """The pins of the present lock as constraints."""
    return [f"{pin['name']}=={pin['version']}" for path in USES for pin in read_pins(path)]


def differences() -> list[str]:
    """How this environment differs from the lock, one line a package.

    Packages of CUDA are left out: which ones there are is for the build of torch to say.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    installed = {
        canonicalize_name(distribution.metadata["Name"]): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    faults = []
    locked = set()
    for path in (PURE, PLATFORM):
        for pin in read_pins(path):
            requirement = Requirement(pin[0].strip())
            name = canonicalize_name(requirement.name)
            locked.add(name)
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            version = installed.get(name)
            if version is None:
                faults.append(f"{requirement} is missing")
            elif version not in requirement.specifier:
                faults.append(f"{requirement} is locked, {version} is installed")
    for name in sorted(installed.keys() - locked - BESIDES_THE_LOCK):
        if not CUDA_NAME.match(name):
            faults.append(f"{name} {installed[name]} is installed but not locked")
    return faults


if __name__ == "__main__":
    raise SystemExit(main())
