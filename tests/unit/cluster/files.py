"""What the tests of `cluster/` read: its files, the lock, and the commands in them."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
LAUNCHER_FILES = ("aws.yaml", "gcp.yaml", "bare.yaml")
RAY_MANIFESTS = ("raycluster.yaml", "rayjob-tune.yaml", "rayjob-score.yaml", "rayservice.yaml")
SCHEMAS = Path(os.environ.get("KUBERAY_SCHEMAS") or ROOT.parent / "shared" / "schemas" / "kuberay")
"""The operator's custom resource definitions, which are no part of this repository."""

_COMMAND = re.compile(r"(?:^|['\"(]|/bin/|(?:&&|\|\||[|;]|--|\w=\S+)\s+)fer-ray (?=[a-z-])")
"""Where a shell expects a program."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(path: Path) -> list[Any]:
    """Of a YAML file, in order."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER))


def launcher(name: str) -> dict[str, Any]:
    (document,) = documents(CLUSTER / name)
    assert isinstance(document, dict)
    return document


def manifest(name: str) -> dict[str, Any]:
    (document,) = documents(CLUSTER / "kubernetes" / name)
    assert isinstance(document, dict)
    return document


def ray_clusters() -> dict[str, dict[str, Any]]:
    """File name -> the specification of the Ray cluster in it."""
    found = {}
    for name in RAY_MANIFESTS:
        spec = manifest(name)["spec"]
        found[name] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specifications of a Ray cluster, the head's first."""
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    return [group["template"]["spec"] for group in groups]


def locked(name: str) -> str:
    """The version that the lock pins."""
    for file in ("lock-platform.txt", "lock-pure.txt"):
        text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
        found = re.search(rf"^{re.escape(name)}==(\S+)", text, flags=re.MULTILINE)
        if found is not None:
            return found[1]
    raise AssertionError(f"{name} is not in the lock")


def commands(path: Path) -> list[list[str]]:
    """Every `fer-ray ...` in a file of `cluster/`, as words behind `fer-ray`.

    In Markdown: in fenced blocks. Elsewhere: in comments that are indented by three spaces or more,
    between backticks, and in the lines that run it. Shell syntax around a command is cut off.
    """
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\\\n(#\s*)?\s*", "", text)
    if path.suffix == ".md":
        parts = [line for block in text.split("```")[1::2] for line in block.splitlines()[1:]]
    else:
        parts = re.findall(r"`([^`\n]*)`", text)
        parts += re.findall(r"^\s*#(?: {3,}| (?=fer-ray))(.*)$", text, flags=re.MULTILINE)
        parts += re.findall(r"^\s*(?:entrypoint: |ExecStart=)(.*)$", text, flags=re.MULTILINE)
    found = []
    for part in parts:
        for match in _COMMAND.finditer(part):
            found.append(_words(part[match.end() :], part[: match.end()].count("'") % 2 == 1))
    return found


def _words(text: str, quoted: bool) -> list[str]:
    if quoted:
        text = text.partition("'")[0]
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            break
        words.append(word)
    return words
