"""TensorBoard's files hold the curves, each epoch once, also after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from fer_ray.search.event_files import SCALARS, EventFiles
from fer_ray.search.live import Asked, LiveTrial
from tests.small import small_config


def row(epoch: int, diverged: bool = False) -> dict[str, Any]:
    values = {name: epoch + number / 100 for number, name in enumerate(SCALARS)}
    return {"epoch": epoch, "diverged": diverged, "time": 1000.0 + epoch, **values}


def trial(epochs: int) -> LiveTrial:
    asked = Asked(3, {"train.optimizer.sgd.lr": 0.05}, small_config(), "sampler", None, 0.0, 0.0)
    return LiveTrial(asked, curve=[row(epoch) for epoch in range(1, epochs + 1)])


def events(folder: Path) -> list[Event]:
    """All events of a folder: a record is its length, 4 bytes, itself, 4 bytes."""
    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event()
            event.ParseFromString(data[at + 12 : at + 12 + size])
            found.append(event)
            at += 16 + size
    return found


def scalars(folder: Path) -> list[tuple[str, int, float, float]]:
    return [
        (value.tag, event.step, round(value.simple_value, 4), event.wall_time)
        for event in events(folder)
        for value in event.summary.value
        if value.tag in SCALARS
    ]


def test_each_epoch_is_there_once_with_its_time(tmp_path: Path) -> None:
    files, live = EventFiles(tmp_path), trial(0)
    files.on_change(live)
    for epoch in (1, 2, 3):
        live.curve.append(row(epoch, diverged=epoch == 3))
        files.on_change(live)
        files.on_change(live)
    live.ended = "diverged"
    files.on_change(live)
    files.on_change(live)
    expected = [
        (name, epoch, round(row(epoch)[name], 4), 1000.0 + epoch)
        for epoch in (1, 2)
        for name in SCALARS
    ]
    assert scalars(tmp_path / "3") == expected
    texts = [v for e in events(tmp_path / "3") for v in e.summary.value if "params" in v.tag]
    assert b"train.optimizer.sgd.lr | 0.05" in texts[0].tensor.string_val[0]


def test_another_session_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    first = EventFiles(tmp_path)
    live = trial(0)
    first.on_change(live)
    live.curve = trial(2).curve
    first.on_change(live)
    first.close()
    second, resumed = EventFiles(tmp_path), trial(2)
    second.on_change(resumed)
    resumed.curve.append(row(3))
    second.on_change(resumed)
    second.close()
    steps = {(tag, step) for tag, step, _, _ in scalars(tmp_path / "3")}
    assert len(scalars(tmp_path / "3")) == len(steps) == 3 * len(SCALARS)
