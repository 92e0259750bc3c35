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
    from fer_ray.score.job import ScoreReport
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
    overwrite: bool = False,
    num_threads: int | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> ScoreReport:
    """Classify whole folders into Parquet; see `fer_ray.score.job`.

    Raises:
        UserError: no image, or a source that is not there.
        OutputExistsError: `out` has files already.
        NothingSucceededError: not one image could be classified.
    """
    from fer_ray.score import job

    return job.score(
        sources,
        Path(out),
        predictor,
        overwrite=overwrite,
        num_threads=num_threads or os.cpu_count() or 1,
        on_shard=on_shard or (lambda done, total: None),
    )


def endpoint(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    max_replicas: int | None = None,
    high_throughput: bool = False,
    precision: str = "auto",
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
