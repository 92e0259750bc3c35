"""Each verb of fer-ray as one typed function; the command line parses, calls these and prints.

Heavy libraries are imported inside the verbs, so that importing this module is cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray.config.space import SearchSpace, load_config, load_space
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.bundle.load import Bundle
    from fer_ray.bundle.predictor import Predictor
    from fer_ray.data.checking import CheckReport
    from fer_ray.data.cleaning import CleanReport
    from fer_ray.data.importing import ImportReport
    from fer_ray.score.estimate import Estimate
    from fer_ray.score.job import Progress
    from fer_ray.score.options import Effort, RowOptions, SourceOptions
    from fer_ray.score.summary import ScoreReport
    from fer_ray.search.results import RunSummary
    from fer_ray.serve.endpoint import Endpoint
    from fer_ray.training.loop import EpochResult
    from fer_ray.training_run import TrainReport


def import_data(
    source: str | Path,
    out: str | Path,
    *,
    size_px: int = 48,
    on_error: str = "stop",
    label_order: str = "auto",
    classes: str | None = None,
    splits: str = "auto",
    group_by: str | None = None,
    votes: str | Path | None = None,
) -> ImportReport:
    """Make a prepared data set of a source of labelled images.

    Args:
        source: an image folder, zip, tar, CSV or Parquet, or a URI of object storage
            (docs/data.md lists the forms).
        out: the new directory.
        size_px: side of the stored images.
        on_error: `stop` at a faulty image, or `skip` it and say so.
        label_order: which number stands for which class: `auto` decides by the form;
            `fer2013`, `alphabetical`, or names with commas between.
        classes: classes other than the seven: `NAME` or `FOLDER=CLASS`, with commas between.
        splits: `auto` keeps the source's own and makes what is missing; `official`; or
            TRAIN:VALIDATION:TEST such as `80:10:10`.
        group_by: a column, or a pattern of the file name with one group, that splits keep whole.
        votes: FER+'s `fer2013new.csv`, joined to the CSV forms.

    Raises:
        DataError: the source is not what it should be.
        OutputExistsError: `out` is there.
    """
    from fer_ray.data.importing import import_images
    from fer_ray.data.sources.detect import SourceOptions

    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error is stop or skip, but got {on_error!r}")
    if not 16 <= size_px <= 256:
        raise UserError(f"size must lie in 16..256 pixels, but got {size_px}")
    options = SourceOptions(label_order, classes, group_by, Path(votes) if votes else None)
    return import_images(
        source, Path(out), size_px=size_px, on_error=on_error, options=options, splits=splits
    )


@dataclass(frozen=True)
class CheckedData:
    """What a check of a data set found, and the cleaned set where one was asked for."""

    report: CheckReport
    cleaned: CleanReport | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        document = self.report.as_dict()
        if self.cleaned is not None:
            document["cleaned"] = {**asdict(self.cleaned), "path": str(self.cleaned.path)}
        return document


def check_data(
    data: str | Path,
    *,
    html: str | Path | None = None,
    config: str | Path | None = None,
    drop_leaks: bool = False,
    drop_duplicates: bool = False,
    out: str | Path | None = None,
) -> CheckedData:
    """Say what a prepared data set is and what is wrong with it; on request write a cleaned one.

    Of the test split hashes and labels are read, no image; the opening is recorded first.

    Args:
        data: a prepared data set.
        html: the page to write, or None.
        config: a config or search space (its defaults) whose augmentation the page previews.
        drop_leaks: drop training images identical to a validation or test image.
        drop_duplicates: drop surplus and conflicting identical images within train.
        out: the cleaned data set; needed with the two before, and only with them.

    Raises:
        UserError: options that do not go together.
        ConfigError: the config is wrong.
        DataError: no prepared data set, or a damaged one.
        OutputExistsError: `out` is there, or `html` is another file.
    """
    from fer_ray.data.checking import check_prepared
    from fer_ray.data.cleaning import write_cleaned
    from fer_ray.data.prepared import open_prepared
    from fer_ray.report.data_page import require_replaceable, write_data_page
    from fer_ray.store import require_absent

    if (drop_leaks or drop_duplicates) != (out is not None):
        raise UserError(
            "--out DIR and --drop-leaks or --drop-duplicates belong together",
            "Say what to drop and where to write the cleaned set; DATA itself is never changed.",
        )
    if config is not None and html is None:
        raise UserError("a config is previewed on the page, but no page is asked for")
    previewed = check(config).base if config is not None else None
    prepared = open_prepared(Path(data))
    if html is not None:
        require_replaceable(Path(html))
    if out is not None:
        require_absent(Path(out), "the cleaned data set", "Choose another --out.")
    report = check_prepared(prepared)
    cleaned = None
    if out is not None:
        cleaned = write_cleaned(
            prepared, Path(out), drop_leaks=drop_leaks, drop_duplicates=drop_duplicates
        )
    if html is not None:
        write_data_page(Path(html), prepared, report, previewed)
    return CheckedData(report, cleaned)


def sample_data(out: str | Path, *, count: int = 3000, seed: int = 0) -> None:
    """Write the built-in synthetic faces as an image folder.

    Raises:
        OutputExistsError: `out` is there.
    """
    from fer_ray.data.sample import write_sample

    if not 1 <= count <= 1_000_000:
        raise UserError(f"count must lie in 1..1,000,000, but got {count}")
    write_sample(Path(out), count, seed)


def check(space: str | Path, overrides: Sequence[str] = (), data: str | None = None) -> SearchSpace:
    """Read a search space and check all of it.

    Raises:
        ConfigError: everything that is wrong, at once.
        NotYetError: an option that this version does not build.
    """
    from fer_ray.config.not_yet import refuse_not_yet

    checked = load_space(Path(space), _with_data(overrides, data))
    refuse_not_yet(checked)
    return checked


def _with_data(overrides: Sequence[str], data: str | None) -> list[str]:
    return [*overrides, *([f"data.source={data}"] if data is not None else [])]


def train(
    config: str | Path,
    *,
    data: str | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    num_threads: int | None = None,
    num_workers: int = 1,
    on_epoch: Callable[[EpochResult], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Train one configuration and write a run with its bundle.

    Args:
        config: a file without holes.
        data: replaces the file's `data.source`.
        out: the new run directory.
        overrides: `address=value` each.
        num_threads: of torch; all cores where it is None, shared by the workers.
        num_workers: processes that train together, through Ray Train.
        on_epoch: told of each epoch as it ends (with several workers: when all have ended).
        say: told how the data are held.

    Raises:
        ConfigError: the file is wrong or has holes.
        DataError: the data are not there.
        FerRayError: the training diverged before its first good epoch.
    """
    from fer_ray.config.not_yet import refuse_not_yet
    from fer_ray.training_run import train_run

    resolved = load_config(Path(config), _with_data(overrides, data))
    refuse_not_yet(resolved)
    if num_workers < 1:
        raise UserError(f"workers must be at least 1, but got {num_workers}")
    return train_run(
        resolved,
        Path(config).read_text(encoding="utf-8"),
        Path(out),
        num_threads=num_threads or os.cpu_count() or 1,
        num_workers=num_workers,
        on_epoch=on_epoch or (lambda result: None),
        say=say,
    )


def _set_threads(num_threads: int | None) -> None:
    import torch

    torch.set_num_threads(num_threads or os.cpu_count() or 1)


def tune(
    space: str | Path,
    *,
    data: str | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    live: bool = False,
) -> RunSummary:
    """Search a space with Ray Tune and Optuna; the winner becomes a bundle at `out`/best.

    Args:
        space: a YAML file with holes.
        data: replaces the file's `data.source`.
        out: the new run directory.
        overrides: `address=value` each.
        live: print progress to stderr.

    Raises:
        ConfigError: the space is wrong.
        NothingSucceededError: no trial finished an epoch.
        InterruptedRunError: by Ctrl-C; what has ended is kept.
    """
    from fer_ray.search.tuning import run_tuning

    checked = check(space, overrides, data)
    return run_tuning(checked, Path(out), live=live)


def load_predictor(
    bundle: str | None = None, *, precision: str = "auto", num_threads: int | None = None
) -> Predictor:
    """Load a bundle, a run's best, or the shipped model, checked and made fast.

    Raises:
        BundleError: anything about it is wrong.
    """
    from fer_ray.bundle.predictor import Predictor

    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision is auto, fp32 or bf16, but got {precision!r}")
    _set_threads(num_threads)
    return Predictor(load_bundle(bundle), precision)


def load_bundle(bundle: str | None = None) -> Bundle:
    """Read and check a bundle, a run's best, or the shipped model.

    Raises:
        BundleError: anything about it is wrong.
    """
    from fer_ray.bundle.load import find_bundle
    from fer_ray.bundle.load import load_bundle as load

    return load(find_bundle(bundle))


def evaluate(
    predictor: Predictor, data: str | Path, *, split: str = "validation", flip: bool = False
) -> dict[str, Any]:
    """Every figure of a bundle on a split of a prepared data set.

    Reading the test split is recorded in the data set first.

    Args:
        predictor: the bundle at work.
        data: a prepared data set.
        split: `validation` or `test`.
        flip: average each image's logits with its mirror image's.

    Returns:
        see `fer_ray.evaluation.evaluate.figures`; with `split`, `test_openings` and `flip`.

    Raises:
        DataError: no such data or split, or the data's classes are not the bundle's.
    """
    from fer_ray.evaluation.on_split import evaluate_split

    if split not in ("validation", "test"):
        raise UserError(f"split is validation or test, but got {split!r}")
    return evaluate_split(predictor, Path(data), split, flip=flip)


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


def serve(
    bundle: Bundle,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    precision: str = "auto",
    num_threads: int | None = None,
    allow_open: bool = False,
    on_ready: Callable[[Endpoint], None] | None = None,
) -> None:
    """Answer over HTTP on Ray Serve until SIGTERM; call it from the main thread.

    Args:
        bundle: checked; see `load_bundle`.
        host: where to listen; loopback, or `allow_open`.
        port: of that host.
        replicas: processes with the model.
        precision: `auto`, `fp32` or `bf16`.
        num_threads: of torch in each replica; all cores, shared out, where it is None.
        allow_open: let other machines in, without authentication.
        on_ready: told once the endpoint answers.

    Raises:
        UserError: the host or port cannot be served on.
        FerRayError: Ray or a replica did not start.
        KeyboardInterrupt: Ctrl-C, after everything was shut down in order.
    """
    from fer_ray.serve.endpoint import Endpoint, check_endpoint
    from fer_ray.serve.start import serve_until_stopped

    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision is auto, fp32 or bf16, but got {precision!r}")
    threads = num_threads or max(1, (os.cpu_count() or 1) // max(1, replicas))
    asked = Endpoint(host, port, replicas, precision, threads)
    endpoint = check_endpoint(asked, allow_open=allow_open)
    serve_until_stopped(bundle, endpoint, lambda: on_ready(endpoint) if on_ready else None)
