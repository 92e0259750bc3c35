"""One tiny bundle, made once; tests that change it take a copy."""

import shutil
from pathlib import Path

import pytest

from tests.bundles import tiny_bundle


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """To be changed."""
    return Path(shutil.copytree(original, tmp_path / "copy"))
