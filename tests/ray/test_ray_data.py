"""Ray Data's hand-over: every row once, in one order, whole or streamed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from fer_ray import api
from fer_ray.config.sections.data import DataConfig
from fer_ray.data import ray_data
from fer_ray.data.loading import TrainingData, load_training_data
from fer_ray.data.prepared import Split
from fer_ray.data.streamed import StreamedSplit
from fer_ray.training.loop import Training
from tests.small import small_config

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of 241 training faces, no multiple of two or three."""
    folder = tmp_path_factory.mktemp("ray_data")
    api.sample_data(folder / "faces", count=301, seed=4)
    api.import_data(folder / "faces", folder / "prepared")
    return folder / "prepared"


def config(prepared: Path, **changes: str) -> DataConfig:
    return DataConfig(source=str(prepared), **changes)


def put(data: DataConfig) -> TrainingData:
    said: list[str] = []
    result: TrainingData = ray.get(ray_data.put_training_data(data, said.append))
    assert len(said) == 1
    assert ("streamed" in said[0]) == (data.cache == "stream")
    return result


def keys(split: Split) -> Counter[tuple[bytes, int]]:
    return Counter(
        (image.tobytes(), int(label))
        for image, label in zip(split.images, split.labels, strict=True)
    )


def test_the_same_rows_in_the_same_order_with_and_without_ray(prepared: Path) -> None:
    alone, through_ray = load_training_data(config(prepared)), put(config(prepared))
    for one, two in (
        (alone.train, through_ray.train),
        (alone.validation, through_ray.validation),
    ):
        assert isinstance(one, Split)
        assert isinstance(two, Split)
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.labels, two.labels)
    assert through_ray.num_train == len(through_ray.train) == 241


def test_trials_share_one_copy(prepared: Path) -> None:
    reference = ray_data.put_training_data(config(prepared), lambda text: None)
    first, second = ray.get(reference), ray.get(reference)
    assert not first.train.images.flags.writeable
    assert np.shares_memory(first.train.images, second.train.images)


@pytest.mark.parametrize(
    ("cache", "workers"),
    [
        ("memory", 2),
        ("stream", 3),
        *(pytest.param("memory", workers, marks=pytest.mark.long) for workers in (1, 3)),
        *(pytest.param("stream", workers, marks=pytest.mark.long) for workers in (1, 2)),
    ],
)
def test_shards_hold_every_row_once(prepared: Path, cache: str, workers: int) -> None:
    whole = load_training_data(config(prepared)).train
    assert isinstance(whole, Split)
    sharded = ray_data.shard_training_data(config(prepared, cache=cache), workers)
    found: Counter[tuple[bytes, int]] = Counter()
    sizes = []
    for rank in range(workers):
        train = ray_data.worker_training_data(sharded, rank).train
        sizes.append(len(train))
        if isinstance(train, StreamedSplit):
            assert cache == "stream"
            for chunk in train.chunks(seed=1):
                found.update(keys(chunk))
        else:
            found.update(keys(train))
    assert found == keys(whole)
    assert max(sizes) - min(sizes) <= 1


def test_shards_are_the_same_again(prepared: Path) -> None:
    first, second = (
        ray_data.worker_training_data(
            ray_data.shard_training_data(config(prepared), 2), rank=1
        ).train
        for _ in range(2)
    )
    assert isinstance(first, Split)
    assert isinstance(second, Split)
    np.testing.assert_array_equal(first.images, second.images)


def test_workers_train_on_what_ray_data_gives_them(prepared: Path) -> None:
    """Rows changed inside Ray Data arrive changed: nothing reads the files behind its back."""
    sharded = ray_data.shard_training_data(config(prepared), 2)

    def all_happy(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**batch, "label": np.full_like(batch["label"], 3)}

    changed = [shard.map_batches(all_happy).materialize() for shard in sharded.shards]
    sharded.shards[:] = changed
    for rank in range(2):
        train = ray_data.worker_training_data(sharded, rank).train
        assert isinstance(train, Split)
        assert set(train.labels.tolist()) == {3}


def test_a_stream_is_shuffled_by_its_seed(prepared: Path) -> None:
    train = put(config(prepared, cache="stream")).train
    assert isinstance(train, StreamedSplit)

    def order(seed: int) -> list[bytes]:
        return [image.tobytes() for chunk in train.chunks(seed) for image in chunk.images]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_a_stream_maps_and_drops_classes(prepared: Path) -> None:
    classes = {"disgust": "angry", "neutral": None}
    data = DataConfig(source=str(prepared), cache="stream", classes=classes)
    streamed = put(data)
    whole = load_training_data(data.model_copy(update={"cache": "memory"}))
    assert isinstance(whole.train, Split)
    assert isinstance(streamed.train, StreamedSplit)
    assert streamed.class_names == whole.class_names
    found = sum((keys(chunk) for chunk in streamed.train.chunks(0)), Counter())
    assert found == keys(whole.train)
    assert len(streamed.train) == len(whole.train) == streamed.num_train


def test_training_on_a_stream_sees_every_row_once_an_epoch(prepared: Path) -> None:
    data = put(config(prepared, cache="stream"))
    settings = small_config({"data.image_size": 48, "data.crop": 44, "train.batch_size": 50})
    training = Training(settings, data)
    batches = list(training.rows.batches(training.num_steps, seed=3))
    sizes = [len(batch) for batch in batches]
    assert sum(sizes) == 241
    assert max(sizes) - min(sizes) <= 1
    rows = torch.cat([batch.images for batch in batches])
    whole = load_training_data(config(prepared)).train
    assert isinstance(whole, Split)
    assert Counter(image.numpy().tobytes() for image in rows) == Counter(
        image.tobytes() for image in whole.images
    )
    first, *_ = training.epochs()
    assert np.isfinite(first.train_loss)


def test_a_training_on_a_stream_goes_on_exactly(prepared: Path, tmp_path: Path) -> None:
    settings = small_config(
        {
            "data.image_size": 20,
            "data.crop": 16,
            "train.epochs": 3,
            "train.batch_size": 50,
            "train.ema": 0.9,
            "train.optimizer": {"adam": {}},
        }
    )

    def training() -> Training:
        return Training(settings, put(config(prepared, cache="stream")))

    whole, first, second = training(), training(), training()
    for _ in whole.epochs():
        pass
    next(first.epochs())
    first.save(tmp_path / "checkpoint")
    second.resume(tmp_path / "checkpoint")
    assert [result.epoch for result in second.epochs()] == [2, 3]
    one, two = whole.best_state(), second.best_state()
    assert all(torch.equal(one[name], two[name]) for name in one)
    live = second.model.state_dict()
    assert all(torch.equal(value, live[name]) for name, value in whole.model.state_dict().items())
