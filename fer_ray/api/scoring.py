"""The verbs that classify images into rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.bundle.predictor import Predictor
    from fer_ray.score.estimate import Estimate
    from fer_ray.score.job import Progress
    from fer_ray.score.options import Effort, RowOptions, SourceOptions
    from fer_ray.score.summary import ScoreReport


def predict(
    predictor: Predictor, images: Sequence[str | Path], *, top_k: int | None = None
) -> list[dict[str, Any]]:
    """Classify a few images, now.

    Returns:
        an entry an image, in order: `path` with `predictions` and `uncertain`, or with `error`.
    """
    from fer_ray.score.shard import score_images

    paths = [os.fspath(image) for image in images]
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"{path} is not a file")
    return score_images(paths, predictor, top_k)


def score(
    sources: Sequence[str],
    out: str | Path,
    predictor: Predictor,
    *,
    resume: bool = False,
    overwrite: bool = False,
    incremental: bool = False,
    retry_errors: bool = False,
    rows: RowOptions | None = None,
    tables: SourceOptions | None = None,
    effort: Effort | None = None,
    resume_line: str | None = None,
    report: bool = False,
    with_images: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> ScoreReport:
    """Classify images from wherever they lie into Parquet; docs/score.md says it all.

    Args:
        sources: folders, files, globs, lists, tables, archives, inventories, `s3://`, `gs://`, `-`.
        out: the job's directory.
        predictor: the bundle at work.
        resume: go on with an unfinished job; a finished one is only reported.
        overwrite: delete an earlier job's output first.
        incremental: add what is new or changed to a finished job.
        retry_errors: classify again what had become error rows; with `resume`.
        rows, tables, effort: what rows hold, how tables are read, how the work is done.
        resume_line: what the user types to go on; told when work is left undone.
        report: write `_report.html` into the directory.
        with_images: show some of the images in it.
        on_progress: told after every chunk.

    Raises:
        UserError: no image, a source that is not there, or another job's directory.
        OutputExistsError: `out` has files already.
        UnfinishedError: shards are left undone; resume.
        NothingSucceededError: not one image could be classified.
    """
    from fer_ray.score import job
    from fer_ray.score.options import Effort, RowOptions, SourceOptions

    modes = {"resume": resume, "overwrite": overwrite, "incremental": incremental}
    chosen = [name for name, wanted in modes.items() if wanted]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other", "Choose one.")
    if retry_errors and not resume:
        raise UserError("retry-errors works on an earlier job", "Add resume.")
    request = job.Request(
        tuple(os.fspath(source) for source in sources),
        Path(out),
        chosen[0] if chosen else "new",
        retry_errors,
        rows or RowOptions(),
        tables or SourceOptions(),
        effort or Effort(),
        resume_line or "the same call with resume=True",
    )
    done = job.run_job(request, predictor, on_progress or (lambda progress: None))
    if report:
        from fer_ray.report.score_page import write_score_page

        write_score_page(done, predictor.bundle, with_images=with_images)
    return done


def plan_score(
    sources: Sequence[str],
    predictor: Predictor,
    *,
    rows: RowOptions | None = None,
    tables: SourceOptions | None = None,
    effort: Effort | None = None,
) -> Estimate:
    """What a scoring job will take, measured on a sample; nothing is written.

    Raises:
        UserError: no image, or a source that cannot be read.
    """
    from fer_ray.score.estimate import plan_job
    from fer_ray.score.options import Effort, RowOptions, SourceOptions

    return plan_job(
        [os.fspath(source) for source in sources],
        predictor,
        rows or RowOptions(),
        tables or SourceOptions(),
        effort or Effort(),
    )


def count_files(sources: Sequence[str]) -> int | None:
    """Images in folders and files; None beyond a hundred thousand, or where nobody knows."""
    from fer_ray.score.listing import count_up_to

    return count_up_to(sources, 100_000)


def begun_with(out: str | Path, runtime: str, precision: str) -> tuple[str, str]:
    """Runtime and precision of the scoring job in `out`, in place of `auto`.

    A job that goes on computes as it began, whatever would be fastest for what is left of it.
    """
    from fer_ray.score.output import Output, read_job

    output = Output(Path(out))
    if not output.job.is_file():
        return runtime, precision
    job = read_job(output)
    return (
        str(job["runtime"]) if runtime == "auto" else runtime,
        str(job["precision"]) if precision == "auto" else precision,
    )
