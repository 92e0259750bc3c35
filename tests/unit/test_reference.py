"""docs/search-space.md and docs/cli.md say what the code says."""

import pytest

from tests.scripts import load_script


@pytest.mark.parametrize("page", ["search-space.md", "cli.md"])
def test_the_reference_is_current(page: str) -> None:
    reference = load_script("tools/reference.py")
    path = reference.DOCS / page
    assert path.read_text(encoding="utf-8") == reference.pages()[path], "make reference"
