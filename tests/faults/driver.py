"""Run the command line and kill it at the Nth rename or flush of its own process.

    python driver.py rename 7 tune space.yaml --out run

`os.replace` and `os.fsync` are patched in this process before the command runs; nothing in the
package knows of it. `commit` counts SQLite's commits. The kill comes before the operation where N
is odd, after it where N is even. N = 0 kills nothing and writes the count to FAULT_COUNT.
"""

import os
import signal
import sys
from pathlib import Path

_count = 0


def _counted(operation, at):
    def patched(*args, **options):
        global _count
        _count += 1
        if _count == at and at % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        result = operation(*args, **options)
        if _count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return patched


def _patch(kind, at):
    if kind == "rename":
        os.replace = _counted(os.replace, at)
    elif kind == "fsync":
        os.fsync = _counted(os.fsync, at)
    else:
        from sqlalchemy.engine.default import DefaultDialect

        DefaultDialect.do_commit = _counted(DefaultDialect.do_commit, at)


def main():
    kind, at = sys.argv[1], int(sys.argv[2])
    _patch(kind, at)
    sys.argv = ["fer-ray", *sys.argv[3:]]
    from fer_ray.cli.main import main as command

    try:
        command()
    finally:
        if "FAULT_COUNT" in os.environ:
            Path(os.environ["FAULT_COUNT"]).write_text(str(_count))


main()
