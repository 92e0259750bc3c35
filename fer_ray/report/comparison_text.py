"""The text of `fer-ray compare`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from fer_ray.evaluation.compare import Comparison, format_p, verdict
from fer_ray.report.evaluation_text import interval, majority_text, openings_line, percent


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Every figure, a line a thing."""
    document = comparison.document
    yield (
        f"{document['count']:,} images of the {document['split']} split of "
        f"{document['data']['path']}; majority baseline {majority_text(document)}"
    )
    yield ""
    yield from _sides(document)
    yield ""
    yield (
        f"both right {document['both_right']:,}, only A {document['only_a_right']:,}, "
        f"only B {document['only_b_right']:,}, both wrong {document['both_wrong']:,}; "
        f"the same answer {document['same_answer']:,}"
    )
    yield ""
    yield from _classes(document["classes"])
    if document["pairs"]:
        yield ""
        yield from _pairs(document["pairs"])
    yield ""
    yield from _verdict("", document)
    clean = document["clean"]
    if clean is not None and clean["images"] < document["count"]:
        unseen = "unseen in train and validation" if document["split"] == "test" else "not in train"
        yield from _verdict(f"on the {clean['images']:,} images {unseen}: ", clean)
    if document["split"] == "test":
        yield openings_line(document["test_openings"])


def _verdict(where: str, paired: dict[str, Any]) -> Iterator[str]:
    found = verdict(paired)
    yield where + found.headline
    yield from textwrap.wrap(found.detail, 98, initial_indent="  ", subsequent_indent="  ")


def _sides(document: dict[str, Any]) -> Iterator[str]:
    yield f"{'':<20}{'A':<24}{'B':<24}"
    a, b = document["a"], document["b"]
    rows = [
        ("bundle", [f"{side['bundle']['name'][:22]}" for side in (a, b)]),
        ("id", [side["bundle"]["id"][:12] for side in (a, b)]),
        (
            "accuracy",
            [
                f"{percent(side['accuracy'])} {interval(side['accuracy_interval'])}"
                for side in (a, b)
            ],
        ),
        ("macro F1", [f"{side['macro_f1']:.3f}" for side in (a, b)]),
        ("balanced accuracy", [percent(side["balanced_accuracy"]) for side in (a, b)]),
        ("log loss (nats)", [f"{side['log_loss']:.4f}" for side in (a, b)]),
        ("calibration error", [f"{side['ece']:.4f}" for side in (a, b)]),
    ]
    for name, cells in rows:
        yield f"{name:<20}{''.join(f'{cell:<24}' for cell in cells)}".rstrip()


def _classes(rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(8, *(len(row["label"]) for row in rows)) + 2
    yield (
        f"{'true class':<{width}}{'images':>8}{'both right':>12}{'only A':>8}{'only B':>8}"
        f"{'both wrong':>12}{'answers differ':>16}{'p':>9}"
    )
    for row in rows:
        yield (
            f"{row['label']:<{width}}{row['count']:>8,}{row['both_right']:>12,}"
            f"{row['only_a_right']:>8,}{row['only_b_right']:>8,}{row['both_wrong']:>12,}"
            f"{row['different_answers']:>16,}{format_p(row['p_value']):>9}"
        )
    yield "(a p of one class among several is a hint, not a finding)"


def _pairs(rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(8, *(max(len(row["a"]), len(row["b"])) for row in rows)) + 2
    yield f"{'A says':<{width}}{'B says':<{width}}{'images':>8}{'A right':>9}{'B right':>9}"
    for row in rows:
        yield (
            f"{row['a']:<{width}}{row['b']:<{width}}{row['count']:>8,}"
            f"{row['a_right']:>9,}{row['b_right']:>9,}"
        )
