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
from fer_ray.errors import DataError, UserError

if TYPE_CHECKING:
    from fer_ray.bundle.export import Exported
    from fer_ray.bundle.load import Bundle
    from fer_ray.bundle.predictor import Predictor
    from fer_ray.data.checking import CheckReport
    from fer_ray.data.cleaning import CleanReport
    from fer_ray.data.importing import ImportReport
    from fer_ray.doctor.findings import Diagnosis
    from fer_ray.evaluation.compare import Comparison
    from fer_ray.evaluation.on_split import Evaluation
    from fer_ray.evaluation.recalibrate import CalibrationReport
    from fer_ray.score.estimate import Estimate
    from fer_ray.score.job import Progress
    from fer_ray.score.options import Effort, RowOptions, SourceOptions
    from fer_ray.score.summary import ScoreReport
    from fer_ray.search.history import RunHistory
    from fer_ray.search.plan import Plan
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
    from fer_ray.report.data_page import COMMAND, write_data_page
    from fer_ray.report.page import require_replaceable
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
        require_replaceable(Path(html), COMMAND)
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
    address: str | None = None,
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
        address: of a Ray cluster, which then trains, also with one worker.
        on_epoch: told of each epoch as it ends (with several workers: when all have ended).
        say: told how the data are held.

    Raises:
        ConfigError: the file is wrong or has holes.
        DataError: the data are not there.
        FerRayError: the training diverged before its first good epoch.
        InterruptedRunError: by Ctrl-C; see `resume_train`.
    """
    from fer_ray.config.not_yet import refuse_not_yet
    from fer_ray.report.train_page import write_train_page
    from fer_ray.runs import RunDirectory
    from fer_ray.training_run import train_run

    resolved = load_config(Path(config), _with_data(overrides, data))
    refuse_not_yet(resolved)
    if num_workers < 1:
        raise UserError(f"workers must be at least 1, but got {num_workers}")
    report = train_run(
        resolved,
        Path(config).read_text(encoding="utf-8"),
        Path(out),
        num_threads=num_threads or os.cpu_count() or 1,
        num_workers=num_workers,
        address=address,
        on_epoch=on_epoch or (lambda result: None),
        say=say,
    )
    write_train_page(RunDirectory(report.path))
    return report


def resume_train(
    run: str | Path,
    *,
    num_threads: int | None = None,
    address: str | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> TrainReport:
    """Go on with a run of `train` that was interrupted or killed, from its last checkpoint.

    Args:
        run: its directory.
        num_threads, address, on_epoch, say: see `train`.

    Raises:
        UserError: no run of `train`, a finished one, or its config or data were changed.
        FerRayError: see `train`.
    """
    from fer_ray.report.train_page import write_train_page
    from fer_ray.runs import RunDirectory
    from fer_ray.training_run import resume_train as resume

    report = resume(
        Path(run),
        num_threads=num_threads or os.cpu_count() or 1,
        address=address,
        on_epoch=on_epoch or (lambda result: None),
        say=say,
    )
    write_train_page(RunDirectory(report.path))
    return report


def tune(
    space: str | Path,
    *,
    data: str | None = None,
    out: str | Path,
    overrides: Sequence[str] = (),
    live: bool = False,
    by: str | None = None,
    address: str | None = None,
) -> RunSummary:
    """Search a space with Ray Tune and Optuna; the winner becomes a bundle at `out`/best.

    Args:
        space: a YAML file with holes.
        data: replaces the file's `data.source`.
        out: the new run directory.
        overrides: `address=value` each.
        live: print progress to stderr.
        by: `18:00` or `2026-05-01 18:00`: this session ends in order then.
        address: of a Ray cluster; None starts one here, or takes RAY_ADDRESS.

    Returns:
        how it ended; its `trials` is a pandas DataFrame.

    Raises:
        ConfigError: the space is wrong.
        NothingSucceededError: no trial finished an epoch.
        InterruptedRunError: by Ctrl-C; what has ended is kept.
        UnfinishedError: stopped, or ended by a fault of the machine; `resume` goes on.
    """
    from fer_ray.report.search_page import with_search_page
    from fer_ray.search.tuning import Options, parse_until, run_tuning

    if "://" in str(out):
        raise UserError(
            f"--out {out} is a URI: a search is not written to object storage yet",
            "Give a directory that all nodes share.",
        )
    checked = check(space, overrides, data)
    options = Options(live, parse_until(by) if by is not None else None, address)
    given = tuple(_with_data(overrides, data))
    return with_search_page(Path(out), lambda: run_tuning(checked, Path(out), given, options))


def verb_of(run: str | Path) -> str:
    """What made a run: `tune` or `train`.

    Raises:
        UserError: no such run.
    """
    from fer_ray.runs import open_run

    return str(open_run(Path(run)).document().get("verb"))


def resume(
    run: str | Path,
    *,
    overrides: Sequence[str] = (),
    live: bool = False,
    by: str | None = None,
    address: str | None = None,
) -> RunSummary:
    """Go on with a search that was killed, stopped or has ended; it needs nothing but the run.

    Args:
        run: its directory.
        overrides: `search.trials`, `stop`, `resources`, `keep` and `confirm` may change.
        live, by, address: as for `tune`.

    Raises:
        UserError: no such run, its data or space have changed, or another process works on it.
        Otherwise as `tune`.
    """
    from fer_ray.report.search_page import with_search_page
    from fer_ray.search.tuning import Options, parse_until, resume_tuning

    if verb_of(run) != "tune":
        raise UserError(f"{run} is a run of one training", "Use resume_train.")
    options = Options(live, parse_until(by) if by is not None else None, address)
    return with_search_page(Path(run), lambda: resume_tuning(Path(run), tuple(overrides), options))


def stop(run: str | Path) -> None:
    """Ask the search that works on a run to end in order: after the epochs under way.

    Raises:
        UserError: no such run, or nothing works on it.
    """
    from fer_ray.runs import open_run
    from fer_ray.search.stopping import BY_COMMAND, request_stop

    directory = open_run(Path(run))
    held = directory.is_worked_on()
    if not held and (held is False or not directory.lock.is_file()):
        raise UserError(f"nothing works on {run}", f"Go on with it: fer-ray resume {run}")
    request_stop(directory, BY_COMMAND)


def plan(
    space: str | Path,
    *,
    data: str | None = None,
    out: str | Path = "runs",
    slots: int | None = None,
    probe: bool = True,
    overrides: Sequence[str] = (),
) -> Plan:
    """What a search will do and cost: rungs, time, disk, samples, warnings.

    Args:
        space: a YAML file with holes.
        data: replaces the file's `data.source`.
        out: where the run would be; nothing is written.
        slots: trials at once; what this machine offers where it is None.
        probe: measure the cheapest and the dearest configuration, a few steps each.
        overrides: `address=value` each.

    Raises:
        ConfigError: the space is wrong.
        DataError: the data are not there.
        FerRayError: no configuration of this space may be trained.
    """
    from fer_ray.data.loading import source_of
    from fer_ray.search import plan as planning
    from fer_ray.search.probe import probe as measure

    checked = check(space, overrides, data)
    if slots is not None and slots < 1:
        raise UserError(f"slots must be at least 1, but got {slots}")
    if probe:
        source_of(checked.base.data)
    return planning.make_plan(checked, Path(out), slots=slots, probe=measure if probe else None)


def open_run(run: str | Path) -> RunHistory:
    """A search as its `study.db` tells it, while it runs or after; `.frame()` is its DataFrame.

    Raises:
        UserError: there is no search.
    """
    from fer_ray.search.history import read_run

    return read_run(Path(run))


def report(run: str | Path) -> Path:
    """Write `report.html` of a search or a training into its run, replacing an earlier one.

    Raises:
        UserError: there is no run, or the page cannot be written.
    """
    from fer_ray.report.search_page import write_search_page
    from fer_ray.report.train_page import write_train_page
    from fer_ray.runs import RunDirectory

    if verb_of(run) == "train":
        return write_train_page(RunDirectory(Path(run)))
    return write_search_page(Path(run))


def doctor(address: str | None = None, *, storage: str | Path | None = None) -> Diagnosis:
    """What this machine and a cluster offer, what is wrong with them, and the remedies.

    Args:
        address: of a Ray cluster: `auto` or HOST:PORT; None looks at this machine alone.
        storage: a directory in which runs shall lie; every node writes and reads a probe there.

    Raises:
        UserError: the cluster cannot be joined.
    """
    from fer_ray.doctor.examine import examine

    return examine(address, Path(storage) if storage is not None else None)


def load_predictor(
    bundle: str | None = None,
    *,
    precision: str = "auto",
    runtime: str = "auto",
    views: str = "single",
    num_threads: int | None = None,
    expected_images: int | None = None,
) -> Predictor:
    """Load a bundle, a run's best, or the shipped model, checked and made fast.

    Args:
        bundle: a directory; the shipped model where it is None.
        precision: `auto`, `fp32` or `bf16`.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`.
        views: `single`, `flip` or `ten_crop`.
        num_threads: of the network; all cores where it is None.
        expected_images: how many there are to classify, where that is known.

    Raises:
        BundleError: anything about it is wrong.
        UserError: an unknown word, or a runtime that is not installed or cannot compute so here.
    """
    from fer_ray.bundle.predictor import Predictor

    return Predictor(
        load_bundle(bundle),
        precision,
        runtime=runtime,
        views=views,
        num_threads=num_threads or os.cpu_count() or 1,
        expected_images=expected_images,
    )


def export(bundle: Bundle, out: str | Path, *, format: str = "onnx") -> Exported:  # noqa: A002 - as the option
    """Write a bundle as one ONNX file with its preprocessing, calibration and labels inside.

    Raises:
        UserError: an unknown format, the extra is not installed, or ONNX cannot say the network.
        OutputExistsError: `out` is there.
        BundleError: ONNX Runtime answers differently; nothing is kept.
    """
    from fer_ray.bundle.export import FORMATS, export_onnx

    if format not in FORMATS:
        raise UserError(f"format is {', '.join(FORMATS)}, but got {format!r}")
    return export_onnx(bundle, Path(out))


def count_images(data: str | Path, split: str) -> int | None:
    """Images of a split of a prepared data set, by its record: no file of the split is opened.

    None where there is no such data set; who reads it will say so.
    """
    from fer_ray.data.prepared import open_prepared

    try:
        return open_prepared(Path(data)).count(split)
    except DataError:
        return None


def load_bundle(bundle: str | None = None) -> Bundle:
    """Read and check a bundle, a run's best, or the shipped model.

    Raises:
        BundleError: anything about it is wrong.
    """
    from fer_ray.bundle.load import find_bundle
    from fer_ray.bundle.load import load_bundle as load

    return load(find_bundle(bundle))


def ensemble(
    bundles: Sequence[str],
    out: str | Path,
    *,
    name: str = "ensemble",
    data: str | Path | None = None,
    num_threads: int | None = None,
) -> Bundle:
    """Make one bundle of several that votes softly: the mean of their calibrated probabilities.

    Args:
        bundles: 2 to 16 bundles or runs, with equal classes and equal size of decoded images.
        out: the new directory; the members are copied into it.
        name: of the ensemble.
        data: a prepared data set; its validation split fits temperature and threshold and gives
            the figures. Without it the temperature is 1 and no answer is marked uncertain.
        num_threads: of torch; all cores where it is None.

    Raises:
        BundleError: the bundles do not go together.
        DataError: no such data, or its classes are not the bundles'.
        OutputExistsError: `out` is there.
    """
    import torch

    from fer_ray.evaluation.ensembling import make_ensemble

    torch.set_num_threads(num_threads or os.cpu_count() or 1)
    members = tuple(load_bundle(bundle) for bundle in bundles)
    prepared = Path(data) if data is not None else None
    return make_ensemble(members, Path(out), name=name, data=prepared)


def evaluate(
    predictor: Predictor,
    data: str | Path,
    *,
    split: str = "validation",
    views: str = "flip",
    group_column: str | None = None,
    html: str | Path | None = None,
    with_images: bool = False,
) -> Evaluation:
    """Every figure of a bundle on a split of a prepared data set.

    Reading the test split is recorded in the data set first.

    Args:
        predictor: the bundle at work.
        data: a prepared data set.
        split: `validation` or `test`.
        views: beside the figures of a `single` view, those of `flip` or `ten_crop`.
        group_column: a column of the data set; figures a group of it too.
        html: the page to write, or None.
        with_images: show faces on the page.

    Returns:
        its `document` is described in docs/evaluation.md.

    Raises:
        DataError: no such data, split or column, or the data's classes are not the bundle's.
        OutputExistsError: `html` is another file.
    """
    from fer_ray.evaluation.on_split import evaluate_split
    from fer_ray.report.evaluation_page import COMMAND, evaluation_page
    from fer_ray.report.page import require_replaceable, write_page

    _require_page(html, with_images)
    if html is not None:
        require_replaceable(Path(html), COMMAND)
    evaluation = evaluate_split(
        predictor, Path(data), split, views=views, group_column=group_column
    )
    if html is not None:
        write_page(Path(html), evaluation_page(evaluation, with_images=with_images), COMMAND)
    return evaluation


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


def _require_page(html: str | Path | None, with_images: bool) -> None:
    if with_images and html is None:
        raise UserError(
            "images are shown on the page, but no page is asked for", "Add --html FILE."
        )


def keep_evaluation(place: str, evaluation: Evaluation) -> Path | None:
    """Keep an evaluation's figures in the run whose best bundle it measured.

    Args:
        place: as the user gave it; nothing is kept where it is a bundle.

    Returns:
        the file in the run's `evaluations/`, or None.
    """
    from fer_ray.runs import open_run

    if not (Path(place) / "run.json").is_file():
        return None
    document = evaluation.as_dict()
    name = f"{document['split']}-{document['bundle']['id'][:12]}"
    return open_run(Path(place)).keep_evaluation(name, document)


def calibrate(
    bundle: Bundle, data: str | Path, out: str | Path, *, target_precision: float = 0.9
) -> CalibrationReport:
    """Fit temperature and abstention threshold on validation anew; writes another bundle.

    Args:
        bundle: stays as it is.
        data: a prepared data set; its validation split decides.
        out: the new bundle's directory.
        target_precision: share of right answers wanted among those that are not uncertain.

    Raises:
        UserError: the target is not between 0 and 1.
        DataError: no such data, or the data's classes are not the bundle's.
        OutputExistsError: `out` is there.
    """
    from fer_ray.evaluation.recalibrate import recalibrate

    return recalibrate(bundle, Path(data), Path(out), target_precision)


def compare(
    a: Predictor,
    b: Predictor,
    data: str | Path,
    *,
    split: str = "validation",
    views: str = "single",
    html: str | Path | None = None,
    with_images: bool = False,
) -> Comparison:
    """Two bundles on the same images: McNemar's test, and where they disagree.

    Reading the test split is recorded in the data set first, once a bundle.

    Args:
        a: one bundle at work.
        b: the other.
        data: a prepared data set.
        split: `validation` or `test`.
        views: `single`, `flip` or `ten_crop`.
        html: the page to write, or None.
        with_images: show faces on the page.

    Returns:
        its `document` is described in docs/evaluation.md.

    Raises:
        DataError: no such data or split, or the bundles' classes are not the data's and the same.
        OutputExistsError: `html` is another file.
    """
    from fer_ray.evaluation.compare import compare_on_split
    from fer_ray.report.comparison_page import COMMAND, comparison_page
    from fer_ray.report.page import require_replaceable, write_page

    _require_page(html, with_images)
    if html is not None:
        require_replaceable(Path(html), COMMAND)
    comparison = compare_on_split((a, b), Path(data), split, views=views)
    if html is not None:
        write_page(Path(html), comparison_page(comparison, with_images=with_images), COMMAND)
    return comparison


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


def endpoint(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    max_replicas: int | None = None,
    high_throughput: bool = False,
    precision: str = "auto",
    runtime: str = "auto",
    num_threads: int | None = None,
    api_keys: str | Path | None = None,
    page: bool = True,
    notice: str | None = None,
    access_log: str | Path | None = None,
    tls_certificate: str | Path | None = None,
    tls_key: str | Path | None = None,
    allow_open: bool = False,
) -> Endpoint:
    """Check where and how to serve, before anything is started.

    Args:
        host: where to listen; beyond loopback with `api_keys`, or `allow_open`.
        port: of that host.
        replicas: processes with the model.
        max_replicas: where their number shall follow the load; None keeps it.
        high_throughput: HAProxy before the replicas.
        precision: `auto`, `fp32` or `bf16`.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`; each replica chooses for itself.
        num_threads: of torch in each replica; all cores, shared out, where it is None.
        api_keys: file of key hashes; None lets everyone in.
        page: whether `GET /` is the page for people.
        notice: what that page says it is and is not; None is the usual text.
        access_log: file, one JSON line a request.
        tls_certificate: PEM file with the chain; None is plain HTTP.
        tls_key: PEM file.
        allow_open: let other machines in, without a key.

    Raises:
        UserError: a value, a file, the host or the port is wrong.
    """
    from fer_ray.serve.endpoint import Endpoint, check_endpoint
    from fer_ray.serve.settings import DEFAULT_NOTICE, Settings

    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision is auto, fp32 or bf16, but got {precision!r}")
    most = max_replicas if max_replicas is not None else replicas
    threads = (os.cpu_count() or 1) // max(1, most) if num_threads is None else num_threads
    if num_threads is not None and num_threads < 1:
        raise UserError(f"threads must be at least 1, but got {num_threads}")
    settings = Settings(
        precision=precision,
        runtime=runtime,
        num_threads=max(1, threads),
        api_keys=_absolute(api_keys),
        has_page=page,
        notice=DEFAULT_NOTICE if notice is None else notice,
        access_log=_absolute(access_log),
    )
    certificate, key = _absolute(tls_certificate), _absolute(tls_key)
    asked = Endpoint(host, port, replicas, most, high_throughput, certificate, key, settings)
    return check_endpoint(asked, allow_open=allow_open)


def _absolute(path: str | Path | None) -> Path | None:
    return Path(path).absolute() if path is not None else None


def serve(
    bundle: Bundle, endpoint: Endpoint, *, on_ready: Callable[[], None] | None = None
) -> None:
    """Answer over HTTP on Ray Serve until SIGTERM; call it from the main thread.

    Args:
        bundle: checked; see `load_bundle`.
        endpoint: where and how; see `endpoint`.
        on_ready: told once the endpoint answers.

    Raises:
        FerRayError: Ray or a replica did not start.
        KeyboardInterrupt: Ctrl-C, after everything was shut down in order.
    """
    from fer_ray.serve.start import serve_until_stopped

    serve_until_stopped(bundle, endpoint, on_ready or (lambda: None))


def update(bundle: str | None, *, port: int = 8000) -> str:
    """Put another bundle behind the `fer-ray serve` of this user and machine, without a gap.

    Args:
        bundle: a bundle's or run's directory; None is the shipped model.
        port: of the endpoint.

    Returns:
        the new bundle's title.

    Raises:
        UserError: no such endpoint.
        BundleError: the bundle is refused; the former one serves on.
        FerRayError: the swap failed; the former one serves on.
    """
    from fer_ray.serve.control import request_update

    return request_update(port, str(Path(bundle).absolute()) if bundle is not None else None)
