"""Runs `fer-ray score` in processes that kill themselves; a script of the tests.

    python kill_score.py BUNDLE SOURCE OUT PLAN.json

PLAN.json holds `rows_a_shard` and `points`, a list of `{"call": "replace" | "fsync" | "clock",
"at": N}`: the first process is killed (SIGKILL) at its N-th rename, at its N-th fsync, or N
milliseconds after it began; the next resumes and is killed at the next point, and so on; the last
one resumes and is let be. Each is forked from this one, so that torch is imported once. After each
death the directory is looked at as a reader would. Prints one JSON document a process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.score.options import Effort

REAL = {"replace": os.replace, "fsync": os.fsync}


def kill_at(call: str, number: int) -> None:
    """Arrange this process's death."""
    if call == "clock":

        def wait() -> None:
            time.sleep(number / 1000)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=wait, daemon=True).start()
        return
    seen = [0]

    def counted(*arguments: object, **options: object) -> object:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return REAL[call](*arguments, **options)

    setattr(os, call, counted)


def score(predictor: Predictor, source: str, out: str, rows_a_shard: int | None) -> None:
    resume = Path(out).exists()
    effort = Effort(engine="local", num_threads=1, rows_a_chunk=256, rows_a_shard=rows_a_shard)
    api.score([source], out, predictor, resume=resume, effort=effort)


def seen_by_a_reader(out: Path) -> dict[str, object]:
    """Parts must be whole files; with `_SUCCESS` everything must be there."""
    rows, paths = 0, set()
    for part in sorted(out.glob("*.parquet")):
        table = pq.read_table(part, columns=["path"])
        rows += table.num_rows
        paths |= set(table.column("path").to_pylist())
    ledger = len(list((out / "_ledger").glob("*.json"))) if (out / "_ledger").is_dir() else 0
    return {
        "rows": rows,
        "paths": len(paths),
        "ledger": ledger,
        "success": (out / "_SUCCESS").exists(),
        "manifest": (out / "_manifest.json").exists(),
    }


def main() -> None:
    bundle, source, out, plan = sys.argv[1:]
    document = json.loads(Path(plan).read_text())
    points, rows_a_shard = document["points"], document["rows_a_shard"]
    predictor = api.load_predictor(bundle, precision="fp32", num_threads=1)
    for point in [*points, None]:
        child = os.fork()
        if child == 0:
            try:
                if point is not None:
                    kill_at(point["call"], point["at"])
                score(predictor, source, out, rows_a_shard)
            except BaseException as error:  # the parent must hear of it
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        code = None if killed else os.WEXITSTATUS(status)
        look = {"point": point, "killed": killed, "code": code, **seen_by_a_reader(Path(out))}
        sys.stdout.write(json.dumps(look) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
