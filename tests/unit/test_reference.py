"""docs/search-space.md and docs/cli.md say what the code says."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["search-space.md", "cli.md"])
def test_the_reference_is_current(page: str) -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = module.DOCS / page
    assert path.read_text(encoding="utf-8") == module.pages()[path], "make reference"
