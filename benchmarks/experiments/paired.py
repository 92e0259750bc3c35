"""What each choice of a finished grid is worth: differences of trials that are equal in all else.

    python benchmarks/experiments/paired.py runs/ablation

For each hole, its first value against each other: the configurations that differ in this hole
alone are paired, their seeds averaged. Gives the mean of the paired differences in points with its
95 % t-interval over the pairs, as a Markdown table. Holes that move together are one hole, and
values within a branch belong to the branch.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
from scipy import stats

from fer_ray.api import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    frame = open_run(parser.parse_args().run).frame()
    if not (frame["ended"] == "complete").all():
        raise SystemExit("not every trial is complete: wait for the search, or resume it")
    holes = own_holes(frame.iloc[:, frame.columns.get_loc("error") + 1 :])
    means = frame.groupby(holes, sort=False)["value"].mean()
    seeds = len(frame) / len(means)
    print(f"{len(means)} configurations, {seeds:g} seeds each, {frame['epochs'].max()} epochs\n")
    print("| choice | instead of | gain in points (95 %) | pairs |")
    print("|---|---|---|---|")
    for hole in holes:
        base, *others = frame[hole].unique()
        for other in others:
            pairs = means.xs(other, level=hole) - means.xs(base, level=hole)
            print(f"| `{hole}` {other} | {base} | {interval(100 * pairs.dropna())} |")


def own_holes(values: pd.DataFrame) -> list[str]:
    """Columns that vary in every trial, but for those that say what an earlier one says."""
    holes: list[str] = []
    for name in values:
        column = values[name]
        if column.isna().any() or column.nunique() < 2:
            continue
        codes = pd.factorize(column)[0]
        if not any((pd.factorize(values[other])[0] == codes).all() for other in holes):
            holes.append(str(name))
    return holes


def interval(differences: pd.Series) -> str:
    count = len(differences)
    mean = differences.mean()
    half = math.inf
    if count > 1:
        half = stats.t.ppf(0.975, count - 1) * differences.std() / math.sqrt(count)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f}) | {count}"


if __name__ == "__main__":
    main()
