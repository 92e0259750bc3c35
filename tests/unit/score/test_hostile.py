"""The hostile folder: what each file becomes, as docs/score.md has it; the job itself succeeds."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fer_ray import api
from fer_ray.bundle.predictor import Predictor
from fer_ray.labels import EXPRESSIONS
from fer_ray.score import prepare
from fer_ray.score.items import readable_path
from fer_ray.score.summary import ScoreReport
from tests import hostile_images
from tests.scoring import rows_of, scored

DOCS = Path(__file__).parents[3] / "docs" / "score.md"

Outcome = tuple[ScoreReport, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return api.load_predictor(precision="fp32", num_threads=1)


@pytest.fixture(scope="module")
def outcome(shipped: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The job over the folder; one file goes between listing and reading."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "in").mkdir()
    for case in hostile_images.CASES:
        case.make(root / "in" / case.name)
    real = prepare.Preparer.stream

    def stream(self: Any, chunks: Any, *arguments: Any) -> Any:
        def listed() -> Any:
            for chunk in chunks:
                (root / "in" / "removed.jpg").unlink(missing_ok=True)
                yield chunk

        return real(self, listed(), *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare.Preparer, "stream", stream)
        report = scored(root / "in", root / "out", shipped)
    rows = {Path(row["path"]).name: row for row in rows_of(root / "out").to_pylist()}
    assert len(rows) == report.rows
    return report, rows


def test_there_are_enough_cases() -> None:
    assert len(hostile_images.CASES) >= 60
    assert len({case.name for case in hostile_images.CASES}) == len(hostile_images.CASES)


@pytest.mark.parametrize("case", hostile_images.CASES, ids=lambda case: ascii(case.name)[1:30])
def test_what_it_becomes(case: hostile_images.Case, outcome: Outcome) -> None:
    _, rows = outcome
    row = rows.get(readable_path(case.name))
    if case.becomes.startswith("skipped") or case.becomes == "nothing":
        assert row is None
        return
    assert row is not None
    if case.name == "locked.jpg" and os.geteuid() == 0:
        assert row["status"] == "ok", "root may read everything"
    elif case.becomes in (hostile_images.OK, hostile_images.OWN):
        assert (row["status"], row["error"]) == ("ok", None)
    else:
        assert row["error_type"] == case.becomes
        assert 0 < len(row["error"]) <= 200
    if case.becomes == hostile_images.OK:
        plain = rows["plain.png"]
        assert row["label"] == plain["label"]
        difference = max(abs(row[f"p_{n}"] - plain[f"p_{n}"]) for n in EXPRESSIONS)
        assert difference <= 0.02
        assert (row["width"], row["height"]) == (hostile_images.SIDE, hostile_images.SIDE)


def test_what_is_skipped_is_counted(outcome: Outcome) -> None:
    report, _ = outcome
    reasons = [case.becomes for case in hostile_images.CASES if case.becomes.startswith("skipped")]
    expected = Counter(reason.removeprefix("skipped (").rstrip(")") for reason in reasons)
    assert report.skipped == expected


def test_the_docs_have_this_table() -> None:
    assert hostile_images.table() in DOCS.read_text(encoding="utf-8"), (
        "paste tests/hostile_images.py's table()"
    )
