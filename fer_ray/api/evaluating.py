"""The verbs that measure bundles on a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fer_ray.errors import DataError, UserError

if TYPE_CHECKING:
    from fer_ray.bundle.load import Bundle
    from fer_ray.bundle.predictor import Predictor
    from fer_ray.evaluation.compare import Comparison
    from fer_ray.evaluation.on_split import Evaluation
    from fer_ray.evaluation.recalibrate import CalibrationReport


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


def count_images(data: str | Path, split: str) -> int | None:
    """Images of a split of a prepared data set, by its record: no file of the split is opened.

    None where there is no such data set; who reads it will say so.
    """
    from fer_ray.data.prepared import open_prepared

    try:
        return open_prepared(Path(data)).count(split)
    except DataError:
        return None


def _require_page(html: str | Path | None, with_images: bool) -> None:
    if with_images and html is None:
        raise UserError(
            "images are shown on the page, but no page is asked for", "Add --html FILE."
        )
