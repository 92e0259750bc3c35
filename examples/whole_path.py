"""Search, look at the trials, evaluate the winner, score a folder: the Python API in one file.

    python examples/whole_path.py [FOLDER]

A minute on two cores, on the built-in synthetic faces. Each call is a verb of the command line.
"""

import sys
from pathlib import Path

import pandas as pd

from fer_ray import api

SPACE = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"


def main(folder: Path) -> None:
    space = api.check(SPACE)
    print(f"{space.base.name}: {len(space.holes)} values are searched")

    few = ["search.trials=6", "train.epochs=3"]
    summary = api.tune(SPACE, out=folder / "run", overrides=few)
    print(f"trial {summary.winner}: {summary.metric} {summary.value:.3f}")
    print(summary.trials[["number", "ended", "epochs", "value"]].to_string(index=False))

    predictor = api.load_predictor(str(folder / "run"))
    api.sample_data(folder / "faces", count=200, seed=99)
    report = api.score([str(folder / "faces")], folder / "scores", predictor)
    print(f"{report.rows} rows in {report.seconds:.1f} s; as SQL: {report.query}")
    rows = pd.read_parquet(folder / "scores")
    print(rows.groupby("label")["score"].agg(["count", "mean"]).round(3).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example"))
