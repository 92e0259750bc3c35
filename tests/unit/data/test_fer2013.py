"""The check on FER2013 itself; needs the image-folder zip without PrivateTest.

FER2013=/path/to/fer2013.zip pytest tests/unit/data/test_fer2013.py
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fer_ray import api
from fer_ray.data.prepared import PreparedSet, open_prepared, read_split
from fer_ray.images.clahe import clahe
from fer_ray.images.preprocess import equalize_histogram
from tests.unit.data.prepared_sets import write_prepared

pytestmark = pytest.mark.skipif(
    "FER2013" not in os.environ,
    reason="set the environment variable FER2013 to FER2013's image-folder zip",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    out = tmp_path_factory.mktemp("fer2013") / "prepared"
    api.import_data(os.environ["FER2013"], out)
    return open_prepared(out)


def test_its_faults_are_all_found_in_time(prepared: PreparedSet, tmp_path: Path) -> None:
    start = time.monotonic()
    report = api.check_data(prepared.path, html=tmp_path / "check.html").report
    seconds = time.monotonic() - start
    assert report.verdict.text == "pristine FER2013 without PrivateTest"
    (leak,) = report.leaks
    assert (leak.split, leak.num_in_train, leak.num_clean) == ("validation", 280, 3309)
    assert report.duplicates.surplus == 1532
    assert report.duplicates.num_conflicting_groups == 47
    assert report.duplicates.num_conflicting_images == 129
    assert report.blanks == {"train": 12, "validation": 1}
    assert seconds < 15


def equalised(images: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(images).split(1000)
    return torch.cat([equalize_histogram(part) for part in parts]).numpy()


def in_tiles(images: np.ndarray) -> np.ndarray:
    return torch.cat([clahe(part) for part in torch.from_numpy(images).split(64)]).numpy()


def blurred(images: np.ndarray) -> np.ndarray:
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (line[:, None] * line)[None, None]
    x = F.pad(torch.from_numpy(images)[:, None].float(), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(x, kernel)[:, 0].round().to(torch.uint8).numpy()


def halved_and_doubled(images: np.ndarray) -> np.ndarray:
    x = F.avg_pool2d(torch.from_numpy(images)[:, None].float(), 2)
    x = F.interpolate(x, (48, 48), mode="bilinear", align_corners=False)
    return x[:, 0].round().to(torch.uint8).numpy()


def darker(images: np.ndarray) -> np.ndarray:
    return (images * 0.9).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (equalised, "altered FER2013: equalised (histograms are flat"),
        (in_tiles, "altered FER2013: equalised in tiles, as CLAHE does"),
        (blurred, "altered FER2013: blurred, or resized and back"),
        (halved_and_doubled, "altered FER2013: blurred, or resized and back"),
        (darker, "altered FER2013: other light"),
        (lambda images: blurred(equalised(images)), "; blurred, or resized and back"),
    ],
)
def test_altered_copies_are_named(
    prepared: PreparedSet, tmp_path: Path, change: object, words: str
) -> None:
    assert callable(change)
    splits = {name: read_split(prepared, name) for name in ("train", "validation")}
    copy = {name: (change(split.images), split.labels) for name, split in splits.items()}
    verdict = api.check_data(write_prepared(tmp_path / "copy", copy).path).report.verdict
    assert words in verdict.text
    assert verdict.kind == "altered"


def test_a_truncated_and_a_resplit_copy_are_named(prepared: PreparedSet, tmp_path: Path) -> None:
    splits = {name: read_split(prepared, name) for name in ("train", "validation")}
    order = np.random.default_rng(0).permutation(len(splits["train"]))
    images, labels = splits["train"].images[order], splits["train"].labels[order]
    validation = (splits["validation"].images, splits["validation"].labels)
    short = {"train": (images[:20_000], labels[:20_000]), "validation": validation}
    verdict = api.check_data(write_prepared(tmp_path / "short", short).path).report.verdict
    assert verdict.text == "truncated FER2013: train has 20,000 of 28,709"
    divided = {
        "train": (images[:25_000], labels[:25_000]),
        "validation": (images[25_000:], labels[25_000:]),
    }
    verdict = api.check_data(write_prepared(tmp_path / "divided", divided).path).report.verdict
    assert verdict.text == (
        "re-split FER2013: the 28,709 images of the official train 28,709 divided as "
        "train 25,000, validation 3,709"
    )
