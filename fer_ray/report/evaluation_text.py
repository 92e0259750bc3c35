"""The text of `fer-ray evaluate` and `calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fer_ray.evaluation.calibrate import NO_RULE
from fer_ray.evaluation.on_split import Evaluation
from fer_ray.images.views import VIEWS

NUM_GROUPS = 30
"""Rows of the group table in text and page; `--json` has all."""


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """Every figure, a line a thing."""
    document = evaluation.document
    yield (
        f"{document['bundle']['name']} on the {document['split']} split of "
        f"{document['data']['path']}: {document['count']:,} images"
    )
    if not document["data"]["is_training_data"]:
        yield "these are not the data it was trained on: 'unseen' below says less than it seems"
    yield ""
    yield from _figure_table(document)
    yield ""
    yield abstention_line(document["abstention"])
    yield ""
    yield from _class_table(document["classes"])
    yield ""
    yield from confusion_lines(document)
    if document["groups"] is not None:
        yield ""
        yield from _group_table(document["groups"])
    if document["split"] == "test":
        yield ""
        yield openings_line(document["test_openings"])


def openings_line(openings: int) -> str:
    """How often the test split was read, and why that matters."""
    times = "once" if openings == 1 else f"{openings:,} times"
    return f"the test split has been opened {times}; each look that leads to a choice wears it out"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(bounds: list[float], scale: float = 100.0, digits: int = 1) -> str:
    """`(66.0 to 69.1)`"""
    low, high = (f"{scale * bound:.{digits}f}" for bound in bounds)
    return f"({low} to {high})"


def _figure_table(document: dict[str, Any]) -> Iterator[str]:
    columns = [document] + ([document["tta"]] if document["tta"] else [])
    rows = [("", [VIEWS[column["views"]] for column in columns])]
    rows += [
        (
            "accuracy",
            [f"{percent(c['accuracy'])} {interval(c['accuracy_interval'])}" for c in columns],
        ),
        (
            "clean accuracy",
            [
                f"{percent(c['clean']['accuracy'])} {interval(c['clean']['accuracy_interval'])}"
                for c in columns
            ],
        ),
        (
            "macro F1",
            [f"{c['macro_f1']:.3f}  {interval(c['macro_f1_interval'], 1, 3)}" for c in columns],
        ),
        (
            "balanced accuracy",
            [
                f"{percent(c['balanced_accuracy'])} {interval(c['balanced_accuracy_interval'])}"
                for c in columns
            ],
        ),
        ("top-2 accuracy", [percent(c["top2_accuracy"]) for c in columns]),
        ("log loss (nats)", [f"{c['log_loss']:.4f}" for c in columns]),
        ("Brier score", [f"{c['brier']:.4f}" for c in columns]),
        (
            "calibration error",
            [
                f"{c['ece']:.4f}  (before temperature {c['ece_before_temperature']:.4f})"
                for c in columns
            ],
        ),
    ]
    width = max(len(cells[0]) for _, cells in rows) + 3
    for name, cells in rows:
        yield f"{name:<20}{cells[0]:<{width}}{''.join(cells[1:])}".rstrip()
    yield f"{'majority baseline':<20}{majority_text(document)}"
    clean = document["clean"]
    seen = f"{clean['num_in_train']:,} of {document['count']:,} are identical to one of train"
    if document["split"] == "test":
        seen += f", {clean['num_in_validation']:,} to one of validation"
    yield f"clean: {clean['count']:,} images; {seen}"
    yield "intervals are 95 %: Wilson's for shares, bootstrap for macro F1 and balanced accuracy"
    yield f"calibration error: over {document['ece_bins']} bins of equal width"


def majority_text(document: dict[str, Any]) -> str:
    """What any accuracy must be read beside."""
    return f"{percent(document['majority_accuracy'])} (always {document['majority_label']})"


def abstention_line(rule: dict[str, Any]) -> str:
    """What the bundle's threshold does."""
    if rule["threshold"] >= NO_RULE:
        return (
            f"not sure: no threshold reaches a precision of {percent(rule['target_precision'])}; "
            "every answer counts as uncertain"
        )
    text = (
        f"not sure: {percent(rule['uncertain_share'])} of the answers score below "
        f"{rule['threshold']:.3f}; "
    )
    if rule["precision"] is None:
        return text + "none is left"
    return text + (
        f"of the other {rule['kept']:,} {percent(rule['precision'])} are right "
        f"{interval(rule['precision_interval'])}, {percent(rule['target_precision'])} wanted"
    )


def _class_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(8, *(len(row["label"]) for row in rows)) + 2
    yield f"{'':<{width}}{'images':>8}{'precision':>22}{'recall':>22}{'F1':>8}"
    for row in rows:
        precision = f"{percent(row['precision'])} {interval(row['precision_interval'])}"
        recall = f"{percent(row['recall'])} {interval(row['recall_interval'])}"
        if not row["predicted"]:
            precision = "never answered"
        if not row["count"]:
            recall = "no image"
        yield (
            f"{row['label']:<{width}}{row['count']:>8,}{precision:>22}{recall:>22}{row['f1']:>8.3f}"
        )


def confusion_lines(document: dict[str, Any]) -> Iterator[str]:
    """The confusion matrix; a row a true class, a column an answer."""
    names = [row["label"] for row in document["classes"]]
    width = max(8, *map(len, names)) + 2
    columns = [max(7, len(name) + 2) for name in names]
    head = "".join(f"{name:>{size}}" for name, size in zip(names, columns, strict=True))
    yield f"{'true':<{width}}{head}   (answered)"
    for name, row in zip(names, document["confusion"], strict=True):
        cells = "".join(f"{n:>{size},}" for n, size in zip(row, columns, strict=True))
        yield f"{name:<{width}}{cells}"


def _group_table(groups: dict[str, Any]) -> Iterator[str]:
    rows = groups["rows"]
    shown = rows[:NUM_GROUPS]
    width = max(len(groups["column"]), *(len(row["group"]) for row in shown)) + 2
    head = f"{'images':>8}{'accuracy':>22}{'balanced':>11}{'majority':>11}"
    yield f"{groups['column']:<{width}}{head}"
    for row in shown:
        accuracy = f"{percent(row['accuracy'])} {interval(row['accuracy_interval'])}"
        yield (
            f"{row['group']:<{width}}{row['count']:>8,}{accuracy:>22}"
            f"{percent(row['balanced_accuracy']):>11}{percent(row['majority_accuracy']):>11}"
        )
    if len(rows) > len(shown):
        yield f"... and {len(rows) - len(shown):,} smaller groups (all with --json)"


def calibration_lines(document: dict[str, Any]) -> Iterator[str]:
    """What `calibrate` changed."""
    before, after, held_out = (document[key] for key in ("before", "after", "held_out"))
    kept = held_out["kept"]
    rows = [
        ("", "before", "after", "held out"),
        ("temperature", f"{before['temperature']:.4f}", f"{after['temperature']:.4f}", ""),
        (
            f"ECE, {document['ece_bins']} equal bins",
            f"{before['ece']:.4f}",
            f"{after['ece']:.4f}",
            "-" if held_out["ece"] is None else f"{held_out['ece']:.4f}",
        ),
        ("log loss (nats)", f"{before['log_loss']:.4f}", f"{after['log_loss']:.4f}", ""),
        ("threshold", _of(before, "threshold"), _of(after, "threshold"), ""),
        (
            "uncertain",
            _of(before, "uncertain_share"),
            _of(after, "uncertain_share"),
            "-" if kept is None else percent(kept["uncertain_share"]),
        ),
        (
            "precision of the rest",
            _of(before, "precision"),
            _of(after, "precision"),
            "-" if kept is None else percent(kept["precision"]),
        ),
    ]
    for name, *cells in rows:
        yield f"{name:<23}{''.join(f'{cell:>13}' for cell in cells)}".rstrip()
    yield (
        "fitted and measured on the validation images; held out: each fifth of them judged by a "
        "fit on the rest"
    )
    if after["abstain"] is None:
        yield (
            f"no threshold reaches a precision of {percent(document['target_precision'])} with "
            "95 % confidence: the new bundle calls every answer uncertain"
        )


def _of(side: dict[str, Any], key: str) -> str:
    rule = side["abstain"]
    if rule is None:
        return "none" if key == "threshold" else "100.0 %" if key == "uncertain_share" else "-"
    return f"{rule[key]:.4f}" if key == "threshold" else percent(rule[key])
