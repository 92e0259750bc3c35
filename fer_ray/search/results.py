"""What a search leaves to read: `status.json`, `trials.parquet`, `best`, and a summary."""

from __future__ import annotations

import datetime
import math
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fer_ray.config.space import flatten
from fer_ray.metrics import wilson_interval
from fer_ray.runs import RunDirectory
from fer_ray.search.live import LiveTrial
from fer_ray.search.study import Study
from fer_ray.store import read_json, remove_tree, replacing, write_json


@dataclass(frozen=True)
class RunSummary:
    """How a search ended.

    Attributes:
        path: the run.
        winner: number of the best trial.
        value: its objective, best epoch.
        default_value: trial 0's, or NaN where it has none.
        bundle_id: of the winner's bundle, at `path`/best.
        validation: the bundle's figures, in fp32.
        ended: how many trials ended how.
        epochs: trained in all.
        seconds: wall time of the search.
        confirmation: as `study.db` has it, or None.
    """

    path: Path
    data_source: str
    metric: str
    winner: int
    params: dict[str, Any]
    value: float
    default_value: float
    bundle_id: str
    validation: dict[str, Any]
    ended: dict[str, int]
    epochs: int
    seconds: float
    confirmation: dict[str, Any] | None = None

    def lines(self) -> list[str]:
        """The summary as text."""
        ended = ", ".join(f"{count} {how}" for how, count in sorted(self.ended.items()))
        figures = self.validation
        low, high = wilson_interval(figures["correct"], figures["count"])
        lines = [
            (
                f"{sum(self.ended.values())} trials ({ended}), {self.epochs} epochs, "
                f"{self.seconds / 60:.1f} min"
            ),
            (
                f"winner: trial {self.winner}, {self.metric} {self.value:.4f} "
                f"(defaults, trial 0: {self.default_value:.4f})"
            ),
        ]
        lines += [f"  {address} = {_show(value)}" for address, value in self.params.items()]
        lines += [
            (
                f"bundle {self.bundle_id[:12]} at {self.path / 'best'}: validation accuracy "
                f"{100 * figures['accuracy']:.1f} % in fp32 (95 %: {100 * low:.1f} to "
                f"{100 * high:.1f}; majority {100 * figures['majority_accuracy']:.1f} %)"
            )
        ]
        return lines + _confirmation_lines(self.confirmation)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial: number, state, value, epochs, and every searched value."""
        return pd.read_parquet(self.path / "trials.parquet")


def _confirmation_lines(confirmation: dict[str, Any] | None) -> list[str]:
    if confirmation is None:
        return []
    lines = [
        (
            f"confirmed on fresh seeds: {len(confirmation['trainings'])} of "
            f"{confirmation['wanted']} trainings, {confirmation['images']:,} validation images"
        )
    ]
    for row in confirmation["comparisons"]:
        lines.append(
            f"  trial {row['trial']} {row['verdict']} the defaults: accuracy "
            f"{100 * row['accuracy']:.1f} against {100 * row['default_accuracy']:.1f} % "
            f"({100 * row['low']:+.1f} to {100 * row['high']:+.1f} points; a difference below "
            f"{100 * row['smallest']:.1f} could not have been seen)"
        )
    return lines


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def update_best(study: Study) -> None:
    """Point `best` at the best trial that has a bundle; delete bundles beyond `keep.top`."""
    if all(live.bundle_id is None for live in study.trials.values()):
        return
    with_bundle = [live for live in study.ranking() if live.bundle_id is not None]
    study.run.point_best(with_bundle[0].number)
    for interim in study.run.bundle(0).parent.glob("*-epoch-*"):
        remove_tree(interim)
    for live in with_bundle[study.space.base.keep.top :]:
        if live.number != 0:
            remove_tree(study.run.bundle(live.number))
            live.bundle_id = None


def drop_checkpoint(run: RunDirectory, live: LiveTrial) -> None:
    """A trial that has ended needs no checkpoint."""
    run.checkpoint(live.number).unlink(missing_ok=True)


def clear_leftovers(study: Study) -> None:
    """Remove what a killed driver was about to remove or to rename."""
    for live in study.trials.values():
        if live.ended is not None:
            drop_checkpoint(study.run, live)
    for folder in (study.run.path, study.run.bundle(0).parent):
        for path in folder.glob(".*.tmp"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_status(study: Study) -> None:
    """`status.json`, atomically."""
    best = study.ranking()[:5]
    running = [live for live in study.trials.values() if live.ended is None]
    write_json(
        study.run.status_json,
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "trials_wanted": study.num_trials,
            "ended": dict(Counter(t.ended for t in study.trials.values() if t.ended)),
            "running": [{"trial": t.number, "epoch": t.epoch, "best": _finite(t)} for t in running],
            "best": [{"trial": t.number, "value": t.best, "epoch": t.epoch} for t in best],
        },
    )


def _finite(live: LiveTrial) -> float | None:
    return None if math.isnan(live.best) else live.best


def write_trials(study: Study) -> None:
    """`trials.parquet`: one row a trial, derived from the study."""
    rows = []
    for _, live in sorted(study.trials.items()):  # by number: they begin in another order
        values = flatten(study.space.fill(live.asked.params))
        searched = {hole.address: values.get(hole.address) for hole in study.space.holes}
        rows.append(
            {
                "number": live.number,
                "ended": live.ended,
                "value": live.best,
                "best_epoch": live.curve[-1]["best_epoch"] if live.curve else 0,
                "epochs": live.epoch,
                "seconds": live.seconds,
                "seed": live.asked.config.train.seed,
                "bundle_id": live.bundle_id,
                "error": live.error,
                **{a: str(v) if isinstance(v, list) else v for a, v in searched.items()},
            }
        )
    with replacing(study.run.path / "trials.parquet") as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)


def summary_of(study: Study, seconds: float) -> RunSummary | None:
    """The summary; None where no trial left a bundle."""
    with_bundle = [live for live in study.ranking() if live.bundle_id is not None]
    if not with_bundle:
        return None
    winner = with_bundle[0]
    metrics = read_json(study.run.bundle(winner.number) / "metrics.json")
    assert winner.bundle_id is not None
    base = study.space.base
    default = study.trials.get(0)
    return RunSummary(
        path=study.run.path,
        data_source=str(base.data.source),
        metric=base.objective.metric,
        winner=winner.number,
        params=winner.asked.params,
        value=winner.best,
        default_value=default.best if default is not None else math.nan,
        bundle_id=winner.bundle_id,
        validation=metrics["validation"],
        ended=dict(Counter(str(live.ended) for live in study.trials.values())),
        epochs=sum(live.epoch for live in study.trials.values()),
        seconds=seconds,
        confirmation=study.file.attributes().get("confirm"),
    )
