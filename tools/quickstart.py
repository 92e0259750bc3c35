"""`make quickstart`: the whole path on the built-in faces, through the real commands.

Search, winner, a folder scored into Parquet, the endpoint asked over HTTP and shut down. Any step
that fails fails this script.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import torch

from fer_ray.data.loading import sample_split
from fer_ray.serve.endpoint import free_port

ROOT = Path(__file__).resolve().parent.parent
FER_RAY = Path(sys.executable).with_name("fer-ray")
READY_WITHIN_S = 60
STOPS_WITHIN_S = 30


def main() -> None:
    started = time.time()
    out = new_folder(ROOT / "runs")
    run = out / "run"
    title("1. Search over two model families on synthetic faces")
    command("tune", "search_spaces/quickstart.yaml", "--out", run)
    judge(run)
    title("2. Score a folder of images into Parquet")
    command("data", "sample", out / "faces", "--count", "200", "--seed", "99")
    command("score", out / "faces", "--out", out / "scores", "--bundle", run)
    print_rows(out / "scores")
    title("3. Serve the winner and ask it about one image")
    image = next((out / "faces" / "test" / "happy").iterdir())
    serve_and_ask(run, image)
    title(f"Done in {(time.time() - started) / 60:.1f} min. Where to look:")
    for what, where in {
        "the run": run,
        "every trial": run / "trials.parquet",
        "the winner, a bundle": run / "best",
        "its model card": run / "best" / "README.md",
        "the scores": out / "scores",
    }.items():
        print(f"  {what:<22}{where.relative_to(ROOT)}")
    print("Next: your own FER2013. See README.md.")


def new_folder(parent: Path) -> Path:
    """`quickstart-1`, `-2`, ...: a run is never overwritten."""
    number = 1
    while (parent / f"quickstart-{number}").exists():
        number += 1
    return parent / f"quickstart-{number}"


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def command(*words: object) -> None:
    """Run one fer-ray command and show it."""
    line = ["fer-ray", *(shown(word) for word in words)]
    print("$ " + shlex.join(line), flush=True)
    subprocess.run([str(FER_RAY), *map(str, words)], check=True, cwd=ROOT)


def shown(word: object) -> str:
    return str(word.relative_to(ROOT)) if isinstance(word, Path) else str(word)


def judge(run: Path) -> None:
    """The winner must beat a linear classifier on the same pixels, and the defaults."""
    trials = pd.read_parquet(run / "trials.parquet")
    winner = trials.loc[trials["value"].idxmax()]
    default = trials.loc[trials["number"] == 0, "value"].item()
    linear = linear_accuracy()
    pruned = int((trials["ended"] == "pruned").sum())
    print(
        f"{len(trials)} trials, {pruned} of them stopped early. Validation accuracy: winner "
        f"{winner['value']:.3f}, defaults {default:.3f}, a linear classifier {linear:.3f}"
    )
    if len(trials) < 10 or pruned == 0:
        sys.exit("quickstart: fewer than 10 trials, or none was stopped early")
    if not winner["value"] > max(default, linear):
        sys.exit("quickstart: the winner beats neither the defaults nor a linear classifier")


def linear_accuracy() -> float:
    """Softmax regression on standardised pixels, the best of three L2 strengths."""
    train, validation = sample_split("train"), sample_split("validation")
    x = torch.from_numpy(train.images).flatten(1).float()
    mean, std = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / std
    x_val = (torch.from_numpy(validation.images).flatten(1).float() - mean) / std
    labels = torch.from_numpy(train.labels)
    answers = torch.from_numpy(validation.labels)
    hits = (
        fit_softmax(x, labels, decay)(x_val).argmax(1) == answers for decay in (1e-3, 1e-2, 1e-1)
    )
    return max(float(hit.float().mean()) for hit in hits)


def fit_softmax(x: torch.Tensor, labels: torch.Tensor, decay: float) -> torch.nn.Linear:
    model = torch.nn.Linear(x.shape[1], 7)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model(x), labels)
        value = value + decay * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return model


def print_rows(scores: Path) -> None:
    """The first rows, as pandas reads them."""
    rows = pd.read_parquet(sorted(scores.glob("part-*.parquet")))
    rows["path"] = rows["path"].map(lambda path: "/".join(Path(path).parts[-3:]))
    columns = ["path", "status", "label", "score", "margin", "uncertain"]
    print(rows[columns].head(6).to_string(index=False))


def serve_and_ask(run: Path, image: Path) -> None:
    """Start the endpoint, wait, POST one image, print the answer, shut down."""
    port = free_port("127.0.0.1")
    words = ["serve", "--bundle", str(run), "--port", str(port)]
    print("$ fer-ray " + shlex.join(["serve", "--bundle", shown(run), "--port", str(port)]) + " &")
    server = subprocess.Popen([str(FER_RAY), *words], cwd=ROOT)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{base}/readyz", server)
        print(
            f"$ curl --data-binary @{shown(image)} -H 'Content-Type: image/png' {base}/v1/predict"
        )
        request = urllib.request.Request(
            f"{base}/v1/predict", image.read_bytes(), {"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            print(json.dumps(json.load(answer), indent=2))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOPS_WITHIN_S)
    if code != 0:
        sys.exit(f"quickstart: the endpoint ended with exit code {code}")


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"quickstart: the endpoint ended with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    sys.exit(f"quickstart: the endpoint was not ready within {READY_WITHIN_S} s")


if __name__ == "__main__":
    main()
