"""Jobs: exactly one row an input whatever is stopped, resumed, changed or tried again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import (
    InterruptedRunError,
    NothingSucceededError,
    OutputExistsError,
    UnfinishedError,
    UserError,
)
from fer_ray.score import fetch, job, local, ray_data
from fer_ray.score.job import Progress
from fer_ray.score.options import Effort, RowOptions
from fer_ray.score.output import Output
from fer_ray.score.planning import rows_of_shard
from fer_ray.score.prepare import Preparer
from tests.scoring import NUM_FACES, assert_same_rows, image_bytes, rows_of, scored


def names_in(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def stop_at(number: int) -> Any:
    """A progress call that ends the job at a chunk, as Ctrl-C does."""
    calls = iter(range(1, 1_000))

    def stop(_progress: Progress) -> None:
        if next(calls) == number:
            raise KeyboardInterrupt

    return stop


def test_a_job_leaves_all_its_files(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    told: list[Progress] = []
    out = tmp_path / "out"
    report = scored(folder, out, predictor, on_progress=told.append)
    assert names_in(out) == {
        "part-00000.parquet",
        "_inputs",
        "_job.json",
        "_ledger",
        "_manifest.json",
        "_stats.json",
        "_SUCCESS",
    }
    assert (told[-1].num_done, told[-1].num_items) == (15, 15)
    errors = {"empty": 1, "truncated": 1, "not_an_image": 1, "missing": 1}
    assert (report.rows, report.errors) == (15, errors)
    assert report.skipped == {"other_name": 1, "hidden": 1}
    assert sum(report.labels.values()) == sum(report.scores) == NUM_FACES
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["bundle_id"] == predictor.bundle.id
    size = (out / "part-00000.parquet").stat().st_size
    assert manifest["parts"] == [{"name": "part-00000.parquet", "rows": 15, "bytes": size}]
    stats = json.loads((out / "_stats.json").read_text())
    assert (stats["rows"], stats["errors"], stats["labels"]) == (15, errors, report.labels)
    frame = pd.read_parquet(out)
    assert frame["path"].tolist() == sorted(frame["path"])
    assert int(frame["uncertain"].astype(float).sum()) == report.uncertain == stats["uncertain"]


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_stopped_job_goes_on_and_repeats_nothing(
    folder: Path, tmp_path: Path, predictor: Predictor, stop: int
) -> None:
    scored(folder, tmp_path / "whole", predictor)
    out = tmp_path / "out"
    sizes = {"rows_a_shard": 4, "rows_a_chunk": 2}
    with pytest.raises(InterruptedRunError) as caught:
        scored(folder, out, predictor, on_progress=stop_at(stop), resume_line="again", **sizes)
    assert "Go on with: again" in str(caught.value)
    assert not names_in(out) & {"_SUCCESS", "_manifest.json", "_stats.json"}
    finished = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(finished) == len(list((out / "_ledger").glob("*.json"))) == (stop - 1) // 2
    scored(folder, out, predictor, resume=True, **sizes)
    assert all(path.stat().st_mtime_ns == changed for path, changed in finished.items())
    assert not list(out.rglob("*.tmp"))
    assert_same_rows(rows_of(tmp_path / "whole"), rows_of(out))


def test_files_that_come_and_go_meanwhile_move_no_border(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InterruptedRunError):
        scored(folder, out, predictor, rows_a_shard=2, on_progress=stop_at(2))
    (folder / "aaa.png").write_bytes(image_bytes(3))
    (folder / "zzz.png").write_bytes(image_bytes(4))
    (folder / "sub" / "face05.png").unlink()
    scored(folder, out, predictor, rows_a_shard=2, resume=True)
    paths = [Path(path).name for path in rows_of(out).column("path").to_pylist()]
    assert len(paths) == len(set(paths))
    assert "zzz.png" in paths, "what was not listed yet is found"
    assert "aaa.png" not in paths, "what lies in a finished range waits for --incremental"
    assert len([name for name in paths if name.startswith("face")]) in (NUM_FACES, NUM_FACES - 1)


def test_a_finished_job_is_only_reported(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    first = scored(folder, out, predictor)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = scored(folder, out, predictor, resume=True)
    assert (again.rows, again.labels, again.rows_now) == (first.rows, first.labels, 0)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_another_job_never_mixes_in(
    folder: Path, tmp_path: Path, predictor: Predictor, other: Predictor
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InterruptedRunError):
        scored(folder, out, predictor, rows_a_shard=4, on_progress=stop_at(2))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(UserError, match="bundle_id"):
        scored(folder, out, other, resume=True)
    with pytest.raises(UserError, match="sources"):
        scored(elsewhere, out, predictor, resume=True)
    with pytest.raises(UserError, match="rows"):
        scored(folder, out, predictor, resume=True, rows=RowOptions(hash=True))
    with pytest.raises(UserError, match="not finished"):
        scored(folder, out, predictor, incremental=True)
    with pytest.raises(OutputExistsError, match="--resume"):
        scored(folder, out, predictor)
    with pytest.raises(UserError, match="holds no scoring job"):
        scored(folder, elsewhere, predictor, resume=True)
    with pytest.raises(UserError, match="exclude each other"):
        scored(folder, out, predictor, resume=True, overwrite=True)


def test_a_list_that_changed_is_another_source(tmp_path: Path, predictor: Predictor) -> None:
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(image_bytes(number))
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{tmp_path}/{n}.png\n" for n in range(5)))
    out = tmp_path / "out"
    with pytest.raises(InterruptedRunError):
        scored(names, out, predictor, rows_a_shard=2, on_progress=stop_at(2))
    names.write_text(names.read_text() + f"{tmp_path}/5.png\n")
    with pytest.raises(UserError, match="sources"):
        scored(names, out, predictor, resume=True)


def test_two_jobs_never_share_a_directory(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"

    def intrude(_progress: Progress) -> None:
        with pytest.raises(OutputExistsError, match="another process"):
            scored(folder, out, predictor, resume=True)

    scored(folder, out, predictor, on_progress=intrude)


# --- overwriting --------------------------------------------------------------------------------


def test_existing_output_is_refused(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    out = tmp_path / "out"
    scored(folder, out, predictor)
    before = (out / "part-00000.parquet").read_bytes()
    with pytest.raises(OutputExistsError, match="--incremental"):
        scored(folder, out, predictor)
    assert (out / "part-00000.parquet").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="not a directory"):
        scored(folder, tmp_path / "file", predictor)


def test_overwrite_replaces_a_job_and_nothing_else(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    scored(folder, out, predictor, rows_a_shard=4)
    scored(folder, out, predictor, overwrite=True)
    assert len(list(out.glob("part-*"))) == len(list((out / "_ledger").iterdir())) == 1
    assert rows_of(out).num_rows == 15
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match="not a scoring job's"):
        scored(folder, mine, predictor, overwrite=True)
    assert names_in(mine) == {"thesis.tex"}
    (out / "notes.txt").write_text("beside a job")
    with pytest.raises(OutputExistsError):
        scored(folder, out, predictor, overwrite=True)
    assert (out / "notes.txt").read_text() == "beside a job"


def test_sources_without_an_image_leave_nothing(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("words")
    for name, words in (("notes", r"no image in .*\(1 other files\)"), ("gone", "does not exist")):
        with pytest.raises(UserError, match=words):
            scored(tmp_path / name, tmp_path / "out", predictor)
        assert not (tmp_path / "out").exists()


def test_nothing_succeeded_says_so_and_keeps_the_rows(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    (tmp_path / "bad" / "b.jpg").write_text("words")
    with pytest.raises(NothingSucceededError) as caught:
        scored(tmp_path / "bad", tmp_path / "out", predictor)
    assert caught.value.exit_code == 3
    found = rows_of(tmp_path / "out").column("error_type").to_pylist()
    assert found == ["empty", "not_an_image"]
    assert (tmp_path / "out" / "_SUCCESS").exists()


# --- transient faults and error rates -----------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> list[str]:
    """Reading the file `name` fails so many times as a disk does, then works."""
    real, seen = fetch.read_local, []

    def read(path: str) -> bytes | fetch.Fault:
        if path.endswith(name) and len(seen) < times:
            seen.append(path)
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(fetch, "read_local", read)
    return seen


def test_a_fault_that_passes_leaves_no_trace(
    folder: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = failing(monkeypatch, "face03.png", 3)
    scored(folder, tmp_path / "out", predictor, give_up_after_s=5.0)
    assert len(seen) == 3
    assert "face03.png" in str(rows_of(tmp_path / "out").column("path").to_pylist())


def test_a_fault_that_stays_is_never_a_row_and_resumes(
    folder: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        failing(patch, "face03.png", 10_000)
        with pytest.raises(UnfinishedError, match=r"1 shard.*Input/output error") as caught:
            scored(folder, out, predictor, rows_a_shard=5, give_up_after_s=0.05)
    assert caught.value.exit_code == 4
    assert not (out / "_SUCCESS").exists()
    assert len(list(out.glob("part-*"))) == 2, "the other shards are finished"
    assert "face03.png" not in str(rows_of(out).column("path").to_pylist())
    scored(folder, out, predictor, resume=True)
    scored(folder, tmp_path / "whole", predictor)
    assert_same_rows(rows_of(tmp_path / "whole"), rows_of(out))


def test_a_full_disk_stops_the_job_in_good_order(
    folder: Path, tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(local.PartWriter, "finish", full)
        with pytest.raises(UnfinishedError, match="No space left"):
            scored(folder, out, predictor)
    assert not list(out.glob("*.parquet"))
    assert not list(out.rglob(".*.tmp"))
    scored(folder, out, predictor, resume=True)
    assert rows_of(out).num_rows == 15


def test_the_error_rate_stops_a_job_that_can_go_on(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnfinishedError, match=r"4 of 15 rows are errors .*allows 0\.2"):
        scored(folder, out, predictor, max_error_rate=0.2)
    assert not (out / "_SUCCESS").exists()
    scored(folder, out, predictor, max_error_rate=0.3, resume=True)
    assert (out / "_SUCCESS").exists()
    with pytest.raises(UserError):
        Effort(max_error_rate=1.5)


# --- incremental and retry-errors ---------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, 1, 2])
def test_incremental_adds_what_is_new_and_replaces_what_changed(
    folder: Path, tmp_path: Path, predictor: Predictor, stop: int | None
) -> None:
    out = tmp_path / "out"
    scored(folder, out, predictor, rows_a_shard=4)
    (folder / "aaa.png").write_bytes(image_bytes(3))
    (folder / "empty.png").write_bytes(image_bytes(4))
    (folder / "sub" / "face01.png").write_bytes(image_bytes(7))
    if stop is None:
        report = scored(folder, out, predictor, rows_a_shard=2, incremental=True)
        assert report.rows_now == 3
    else:
        with pytest.raises(InterruptedRunError):
            scored(
                folder, out, predictor, rows_a_shard=2, incremental=True, on_progress=stop_at(stop)
            )
        assert not (out / "_SUCCESS").exists()
        report = scored(folder, out, predictor, rows_a_shard=2, resume=True)
    scored(folder, tmp_path / "fresh", predictor)
    assert_same_rows(rows_of(tmp_path / "fresh"), rows_of(out))
    assert report.rows == 16
    assert sum(report.errors.values()) == 3, "the ledger forgets the rows that were dropped"
    again = scored(folder, out, predictor, incremental=True)
    assert (again.rows, again.rows_now) == (16, 0)
    (folder / "sub" / "face01.png").write_bytes(image_bytes(8))
    assert scored(folder, out, predictor, incremental=True).rows_now == 1
    assert len(json.loads((out / "_job.json").read_text())["snapshots"]) == 4
    scored(folder, tmp_path / "last", predictor)
    assert_same_rows(rows_of(tmp_path / "last"), rows_of(out))


def test_a_touched_file_counts_as_changed(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    scored(folder, out, predictor)
    os.utime(folder / "face00.png", ns=(1, 1))
    assert scored(folder, out, predictor, incremental=True).rows_now == 1
    assert rows_of(out).num_rows == 15


def test_retry_errors_tries_error_rows_and_leaves_the_others(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    scored(folder, out, predictor, rows_a_shard=4)
    (folder / "empty.png").write_bytes(image_bytes(2))
    (folder / "nowhere.png").write_bytes(image_bytes(3))
    ok = {row["path"]: row for row in rows_of(out).to_pylist() if row["status"] == "ok"}
    report = scored(folder, out, predictor, resume=True, retry_errors=True)
    assert report.errors == {"truncated": 1, "not_an_image": 1}
    rows = {row["path"]: row for row in rows_of(out).to_pylist()}
    assert len(rows) == rows_of(out).num_rows == 15
    assert all(rows[path] == row for path, row in ok.items())
    assert rows[str(folder / "empty.png")]["status"] == "ok"
    assert rows_of(out).column("path").to_pylist() == sorted(rows)
    with pytest.raises(UserError, match="Add resume"):
        scored(folder, out, predictor, retry_errors=True)


# --- where it runs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "from_items", "address", "on_ray"),
    [(8, 10, None, True), (8, 100, None, False), (2, 10, None, False), (2, 100, "auto", True)],
)
def test_auto_takes_ray_for_large_jobs_on_large_machines(
    folder: Path,
    tmp_path: Path,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    from_items: int,
    address: str | None,
    on_ray: bool,
) -> None:
    used: list[str] = []

    def run(shards: Any, output: Any, recipe: Any, classifier: Any, parts: Any, *rest: Any) -> Any:
        used.append("ray")
        preparer = Preparer(recipe)
        return local.run_local(shards, output, preparer, classifier, parts, 4, rest[-1])

    monkeypatch.setattr(ray_data, "run_on_ray", run)
    monkeypatch.setattr(job.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(job, "RAY_FROM_ITEMS", from_items)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    report = scored(folder, tmp_path / "out", predictor, engine="auto", rows_a_shard=4)
    assert report.rows == 15
    assert bool(used) == on_ray


# --- sizes ----------------------------------------------------------------------------------------


def test_shards_are_small_at_first_and_bounded() -> None:
    sizes = [rows_of_shard(number, 0, None) for number in range(400)]
    assert sizes[0] == 2_000
    assert sizes == sorted(sizes)
    assert sizes[-1] == 1_048_576
    assert rows_of_shard(399, 512, None) * (128 + 4 * 512) <= 128 * 1024 * 1024
    assert rows_of_shard(5, 0, 7) == 7


def test_the_ledger_grows_with_shards_and_not_with_images(
    folder: Path, tmp_path: Path, predictor: Predictor
) -> None:
    scored(folder, tmp_path / "out", predictor, rows_a_shard=5)
    output = Output(tmp_path / "out")
    assert output.finished() == output.planned() == [0, 1, 2]
