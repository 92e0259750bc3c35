"""A disk that is full in mid-search: a clear end, and a run that goes on where there is room."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import runs


def _may_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="needs the right to mount a small disk")
def test_a_full_disk_ends_the_search_in_order(tmp_path: Path) -> None:
    disk, kept, log = tmp_path / "disk", tmp_path / "kept", tmp_path / "epochs.log"
    disk.mkdir()
    space = tmp_path / "faults.yaml"
    space.write_text(runs.SPACE)
    driver = shlex.join([sys.executable, str(runs.HERE / "driver.py"), "rename", "0"])
    script = f"""
mount -t tmpfs -o size=260k none {disk}
{driver} tune {space} --out {disk}/run
echo "code $?"
mount -o remount,size=64m {disk}
{driver} resume {disk}/run
echo "code $?"
cp -a {disk}/run {kept}
"""
    result = subprocess.run(
        ["unshare", "-m", "bash", "-c", script],
        env=runs.environment(log),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    text = result.stdout + result.stderr
    assert "code 4" in result.stdout, text
    assert "fault of the machine" in text, text
    assert "fer-ray resume" in text, text
    assert result.stdout.rstrip().endswith("code 0"), text
    runs.check_whole(kept, log)
