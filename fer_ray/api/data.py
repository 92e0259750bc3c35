"""The verbs that make, draw and check data sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray.api.spaces import check
from fer_ray.errors import UserError

if TYPE_CHECKING:
    from fer_ray.data.checking import CheckReport
    from fer_ray.data.cleaning import CleanReport
    from fer_ray.data.importing import ImportReport


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
    with_images: bool = False,
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
        with_images: show faces on the page.
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
    if (with_images or config is not None) and html is None:
        raise UserError("images are shown on the page, but no page is asked for")
    if config is not None and not with_images:
        raise UserError("a preview of the augmentation shows faces", "Add --with-images.")
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
        write_data_page(Path(html), prepared, report, previewed, with_images=with_images)
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
