"""Reading a prepared set: order, class maps, refusals, and a test split that stays shut."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fer_ray.config.sections.data import DataConfig
from fer_ray.data.importing import import_images
from fer_ray.data.loading import load_training_data, source_name, source_of
from fer_ray.data.prepared import (
    MANIFEST,
    TEST_OPENINGS,
    Split,
    map_classes,
    open_prepared,
    read_split,
    record_test_opening,
    split_of,
)
from fer_ray.errors import DataError
from fer_ray.labels import EXPRESSIONS
from tests.unit.data.kaggle import make_folder


@pytest.fixture
def prepared_path(tmp_path: Path) -> Path:
    folder = make_folder(tmp_path / "source")
    import_images(folder, tmp_path / "prepared", size_px=48, on_error="stop")
    return tmp_path / "prepared"


def data_config(path: Path | str, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"source": str(path), **changes})


def test_a_split_is_read_in_the_order_of_its_ids(prepared_path: Path) -> None:
    (part,) = prepared_path.glob("part-train-*.parquet")
    found = read_split(open_prepared(prepared_path), "train")
    rows = sorted(pq.read_table(part).to_pylist(), key=lambda row: row["sample_id"])
    assert found.images.shape == (20, 48, 48)
    assert (found.images.dtype, found.labels.dtype) == (np.uint8, np.int64)
    assert [image.tobytes() for image in found.images] == [row["image"] for row in rows]
    assert found.labels.tolist() == [row["label"] for row in rows]


def test_the_order_of_rows_and_parts_changes_nothing(prepared_path: Path) -> None:
    before = read_split(open_prepared(prepared_path), "train")
    (part,) = prepared_path.glob("part-train-*.parquet")
    table = pq.read_table(part)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    pq.write_table(shuffled.slice(0, 7), part)
    pq.write_table(shuffled.slice(7), prepared_path / "part-train-00001.parquet")
    info = json.loads((prepared_path / MANIFEST).read_text())
    info["parts"]["train"] = 2
    (prepared_path / MANIFEST).write_text(json.dumps(info))
    after = read_split(open_prepared(prepared_path), "train")
    assert np.array_equal(before.images, after.images)
    assert np.array_equal(before.labels, after.labels)


def test_a_sliced_table_is_read_right(prepared_path: Path) -> None:
    (part,) = prepared_path.glob("part-train-*.parquet")
    table = pq.read_table(part)
    whole, slice_ = split_of(table, 48), split_of(table.slice(5, 9), 48)
    assert np.array_equal(slice_.images, whole.images[5:14])
    assert np.array_equal(slice_.labels, whole.labels[5:14])


def test_training_never_opens_the_test_split(prepared_path: Path) -> None:
    before = load_training_data(data_config(prepared_path))
    for path in prepared_path.glob("part-test-*.parquet"):
        path.unlink()
    after = load_training_data(data_config(prepared_path))
    for name in ("train", "validation"):
        one, two = getattr(before, name), getattr(after, name)
        assert np.array_equal(one.images, two.images)
        assert np.array_equal(one.labels, two.labels)
    assert (len(after.train), len(after.validation)) == (20, 10)
    assert (before.mean, before.std) == (after.mean, after.std)
    assert not (prepared_path / TEST_OPENINGS).exists()


def test_every_opening_of_the_test_split_is_written_down(prepared_path: Path) -> None:
    prepared = open_prepared(prepared_path)
    assert record_test_opening(prepared, "evaluate", "abc") == 1
    assert record_test_opening(prepared, "evaluate", "def") == 2
    lines = (prepared_path / TEST_OPENINGS).read_text().splitlines()
    assert [json.loads(line)["bundle"] for line in lines] == ["abc", "def"]


# --- refusals -------------------------------------------------------------------------------------


def test_what_is_not_a_prepared_set(tmp_path: Path, prepared_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing there"):
        open_prepared(tmp_path / "none")
    with pytest.raises(DataError, match=r"it has no _dataset\.json"):
        open_prepared(tmp_path / "source")
    (prepared_path / MANIFEST).write_text('{"format": 99}')
    with pytest.raises(DataError, match="has format 99; this fer-ray reads format 1"):
        open_prepared(prepared_path)
    (prepared_path / MANIFEST).write_text("[]")
    with pytest.raises(DataError, match="has format None"):
        open_prepared(prepared_path)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "source", splits=("train", "validation"))
    import_images(folder, tmp_path / "prepared", size_px=48, on_error="stop")
    with pytest.raises(DataError, match="has no test split; it has train, validation"):
        read_split(open_prepared(tmp_path / "prepared"), "test")


def test_a_damaged_part_is_a_data_error(prepared_path: Path) -> None:
    (part,) = prepared_path.glob("part-train-*.parquet")
    part.write_bytes(part.read_bytes()[:500])
    with pytest.raises(DataError, match=r"part-train-00000\.parquet"):
        read_split(open_prepared(prepared_path), "train")


def test_images_of_another_size_than_the_manifest_says(prepared_path: Path) -> None:
    info = json.loads((prepared_path / MANIFEST).read_text())
    info["size_px"] = 50
    (prepared_path / MANIFEST).write_text(json.dumps(info))
    with pytest.raises(DataError, match="has not 50 x 50 bytes"):
        read_split(open_prepared(prepared_path), "train")


def test_no_source_is_told_with_a_remedy() -> None:
    with pytest.raises(DataError, match="--data sample"):
        source_of(DataConfig())


# --- class maps -----------------------------------------------------------------------------------


def every_class() -> Split:
    labels = np.arange(14) % 7
    return Split(np.arange(14, dtype=np.uint8).repeat(4).reshape(14, 2, 2), labels.astype(np.int64))


def test_fer7_is_the_split_itself() -> None:
    split = every_class()
    assert map_classes(split, EXPRESSIONS, "fer7") == (split, EXPRESSIONS)


def test_fer4_merges_labels_and_keeps_every_image() -> None:
    found, names = map_classes(every_class(), EXPRESSIONS, "fer4")
    assert len(names) == 4
    assert found.labels.tolist() == [0, 0, 1, 2, 1, 3, 3] * 2
    assert np.array_equal(found.images, every_class().images)


def test_valence_drops_images_with_their_labels() -> None:
    found, names = map_classes(every_class(), EXPRESSIONS, "valence")
    assert names == ("negative", "positive", "neutral")
    assert found.labels.tolist() == [0, 0, 0, 1, 0, 2] * 2
    assert found.images[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 13]


def test_a_partial_map_with_a_dropped_class() -> None:
    found, names = map_classes(every_class(), EXPRESSIONS, {"disgust": "angry", "fear": None})
    assert names == ("angry", "happy", "sad", "surprise", "neutral")
    assert found.labels.tolist() == [0, 0, 1, 2, 3, 4] * 2


def test_renaming_one_class_keeps_indices_and_changes_the_name() -> None:
    found, names = map_classes(every_class(), EXPRESSIONS, {"happy": "joy"})
    assert names[3] == "joy"
    assert np.array_equal(found.labels, every_class().labels)


def test_class_maps_act_on_training_and_validation(prepared_path: Path) -> None:
    whole = load_training_data(data_config(prepared_path))
    found = load_training_data(data_config(prepared_path, classes="valence"))
    assert found.class_names == ("negative", "positive", "neutral")
    surprise = EXPRESSIONS.index("surprise")
    assert len(found.train) == len(whole.train) - int((whole.train.labels == surprise).sum())
    assert set(found.validation.labels.tolist()) <= {0, 1, 2}


# --- names ----------------------------------------------------------------------------------------


def test_the_name_of_the_data(prepared_path: Path) -> None:
    assert source_name(data_config("sample")) == "synthetic faces"
    assert source_name(data_config(prepared_path)) == "prepared"
    info = json.loads((prepared_path / MANIFEST).read_text())
    info["verdict"] = "pristine FER2013 without PrivateTest"
    (prepared_path / MANIFEST).write_text(json.dumps(info))
    assert source_name(data_config(prepared_path)) == "FER2013"
