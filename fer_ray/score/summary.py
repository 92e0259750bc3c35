"""What a finished job says of itself: totals, agreement with known labels, drift of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_ray.metrics import Tally
from fer_ray.score.output import Output
from fer_ray.score.parts import Counts
from fer_ray.store import read_json

DRIFT_WORDS = ((0.05, "as on validation"), (0.15, "a little different"), (0.3, "different"))
"""Upper bounds of the distance; above the last it is `very different`."""


@dataclass(frozen=True)
class Agreement:
    """Answers against the labels that folders are named by.

    Attributes:
        class_names: of rows and columns.
        count: rows with a known label and an answer.
        confusion: rows = true class, columns = answer.
        majority_accuracy: of always answering the commonest label.
    """

    class_names: tuple[str, ...]
    count: int
    accuracy: float
    macro_f1: float
    majority_accuracy: float
    confusion: list[list[int]]


@dataclass(frozen=True)
class Drift:
    """How far the answers' class mix lies from that on the bundle's validation images.

    Attributes:
        distance: total variation, half the sum of |share - share on validation|; 0 = the same,
            1 = nothing in common.
        word: for it.
        shares, validation_shares: by class.
    """

    distance: float
    word: str
    shares: dict[str, float]
    validation_shares: dict[str, float]


@dataclass(frozen=True)
class ScoreReport:
    """What a job did.

    Attributes:
        rows: all rows; `status` and `errors` count them, the latter by `error_type`.
        labels: ok rows by answer.
        scores: ok rows by score, in 20 bins of equal width over 0..1.
        skipped: files passed over, by reason.
        num_files, num_bytes: of the parts.
        seconds: wall time of this process, from listing to `_SUCCESS`; of a resumed job the last.
        rows_now: rows written in that time.
        agreement: None without known labels.
        drift: None where the bundle does not say what it answers on validation.
        query: for DuckDB.
    """

    out: Path
    rows: int
    status: dict[str, int]
    errors: dict[str, int]
    labels: dict[str, int]
    uncertain: int
    scores: list[int]
    skipped: dict[str, int]
    num_files: int
    num_bytes: int
    seconds: float
    rows_now: int
    agreement: Agreement | None
    drift: Drift | None
    query: str

    @property
    def num_skipped(self) -> int:
        return sum(self.skipped.values())

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


def agreement_of(counts: Counts) -> Agreement | None:
    """Metrics of the confusion that shards have summed up."""
    tally = Tally(counts.confusion)
    if tally.count == 0:
        return None
    return Agreement(
        counts.class_names,
        tally.count,
        tally.accuracy,
        tally.macro_f1,
        tally.majority_accuracy,
        counts.confusion.tolist(),
    )


def drift_of(
    labels: dict[str, int], class_names: tuple[str, ...], metrics: dict[str, Any]
) -> Drift | None:
    """The class mix of the answers against that of the answers on validation.

    Answers are compared with answers: a classifier that favours a class favours it on both sides.

    Args:
        labels: ok rows by answer.
        class_names: of the bundle.
        metrics: its `metrics.json`.
    """
    confusion = np.asarray(metrics.get("validation", {}).get("confusion", []), dtype=np.float64)
    total = sum(labels.values())
    size = len(class_names)
    if confusion.shape != (size, size) or not confusion.sum() or not total:
        return None
    here = np.array([labels.get(name, 0) for name in class_names]) / total
    there = confusion.sum(axis=0) / confusion.sum()
    distance = float(np.abs(here - there).sum() / 2)
    word = next((word for bound, word in DRIFT_WORDS if distance < bound), "very different")
    return Drift(
        distance,
        word,
        dict(zip(class_names, here.round(6).tolist(), strict=True)),
        dict(zip(class_names, there.round(6).tolist(), strict=True)),
    )


def report_of(
    output: Output,
    counts: Counts,
    parts: Sequence[dict[str, Any]],
    seconds: float,
    rows_now: int,
    metrics: dict[str, Any],
) -> ScoreReport:
    """A job's report from the sums of its ledger; see `ScoreReport` for the arguments."""
    complete = output.complete
    named = {name: counts.labels[name] for name in counts.class_names}
    labels = {name: count for name, count in named.items() if count}
    return ScoreReport(
        output.root,
        counts.rows,
        dict(counts.status),
        dict(counts.errors),
        labels,
        counts.uncertain,
        counts.scores.tolist(),
        read_json(complete)["skipped"] if complete.is_file() else {},
        len(parts),
        sum(int(part["bytes"]) for part in parts),
        seconds,
        rows_now,
        agreement_of(counts),
        drift_of(labels, counts.class_names, metrics),
        query_of(output.root),
    )


def stats_of(report: ScoreReport) -> dict[str, Any]:
    """`_stats.json`."""
    document = report.as_dict()
    del document["out"], document["query"]
    return {**document, "seconds": round(report.seconds, 3)}


def query_of(out: Path) -> str:
    """A first look at the rows with DuckDB."""
    quoted = str(out).replace("'", "''")
    return (
        "SELECT label, count(*) AS images, round(avg(score), 3) AS score, "
        f"sum(uncertain::int) AS uncertain FROM read_parquet('{quoted}/part-*.parquet') "
        "WHERE status = 'ok' GROUP BY label ORDER BY images DESC"
    )
