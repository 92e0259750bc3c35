"""The page of a check: offline, complete, and safe with hostile names."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_ray.data.checking import check_prepared
from fer_ray.data.prepared import PreparedSet
from fer_ray.errors import OutputExistsError, UserError
from fer_ray.labels import EXPRESSIONS
from fer_ray.report.charts import bars, histogram_path
from fer_ray.report.data_page import data_page, write_data_page
from fer_ray.report.pictures import contact_sheet, data_uri
from fer_ray.report.previews import NUM_PREVIEWS, previews
from tests.pages import Page, assert_offline
from tests.small import small_config
from tests.unit.data.prepared_sets import three_splits, with_faults, write_prepared


@pytest.fixture
def faulty(tmp_path: Path) -> PreparedSet:
    return write_prepared(tmp_path / "set", with_faults())


def test_the_page_has_every_part(faulty: PreparedSet) -> None:
    text = data_page(faulty, check_prepared(faulty), small_config(), with_images=True)
    page = Page(text)
    for heading in (
        "Every class side by side",
        "Class distribution",
        "Class table",
        "Pixels",
        "Mean face of each class",
        "Identical images with conflicting labels",
        "Leaks",
        "Blank images",
        "Augmentation of small",
        "Contact sheets",
    ):
        assert heading in page.words, heading
    for name in EXPRESSIONS:
        assert name in page.words
    assert "not FER2013 as published" in page.words
    assert "openings of the test split" in page.words


def test_without_being_asked_it_shows_no_face(faulty: PreparedSet) -> None:
    text = data_page(faulty, check_prepared(faulty), None, with_images=False)
    page = Page(text)
    assert "img" not in page.tags
    assert "data:image" not in text
    assert "Contact sheets" not in page.words
    for heading in ("Class table", "Identical images with conflicting labels", "--with-images"):
        assert heading in page.words
    assert "At most one of the labels can be meant" in page.words


def test_the_page_is_offline(faulty: PreparedSet) -> None:
    text = data_page(faulty, check_prepared(faulty), small_config(), with_images=True)
    assert_offline(text)
    assert "data:image/png;base64," in text


def test_names_made_of_html_stay_text(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">'
    names = (evil, "</style><script>alert(2)</script>", "{{ 7 * 7 }}", *EXPRESSIONS[3:])
    changes = {"verdict": f"<b>{evil}</b>", "fingerprint": '"><script>'}
    place = tmp_path / "<script>alert(3)<"
    prepared = write_prepared(place, with_faults(), names=names, changes=changes)
    report = check_prepared(prepared)
    text = data_page(prepared, report, small_config(), with_images=True)
    page = Page(text)
    assert "script" not in page.tags
    assert "b" in page.tags
    assert evil in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "<script" not in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_no_image_of_the_test_split_is_on_the_page(tmp_path: Path) -> None:
    splits = three_splits()
    prepared = write_prepared(tmp_path / "set", splits)
    text = data_page(prepared, check_prepared(prepared), None, with_images=True)
    shown = set()
    for code in re.findall(r'src="data:image/png;base64,([^"]+)"', text):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
        for top in range(0, pixels.shape[0], 48):
            for left in range(0, pixels.shape[1], 48):
                shown.add(pixels[top : top + 48, left : left + 48].tobytes())
    assert sum(image.tobytes() in shown for image in splits["train"][0]) == 42
    assert not any(image.tobytes() in shown for image in splits["test"][0])


def test_without_config_faults_or_a_class(tmp_path: Path) -> None:
    splits = three_splits()
    keep = splits["train"][1] != 2
    splits["train"] = (splits["train"][0][keep], splits["train"][1][keep])
    del splits["test"]
    prepared = write_prepared(tmp_path / "set", splits)
    page = Page(data_page(prepared, check_prepared(prepared), None, with_images=True))
    assert "Augmentation" not in page.words
    assert page.words.count("None.") == 3
    assert "openings" not in page.words


def test_the_page_replaces_only_its_own_kind(tmp_path: Path, faulty: PreparedSet) -> None:
    report = check_prepared(faulty)
    path = tmp_path / "new" / "check.html"
    write_data_page(path, faulty, report, None, with_images=True)
    first = path.read_text()
    write_data_page(path, faulty, report, None, with_images=True)
    assert path.read_text() == first
    path.write_text("<!doctype html>my own")
    with pytest.raises(OutputExistsError, match="not a page of"):
        write_data_page(path, faulty, report, None, with_images=True)
    with pytest.raises(OutputExistsError):
        write_data_page(tmp_path, faulty, report, None, with_images=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_data_page(tmp_path / "file" / "check.html", faulty, report, None, with_images=True)


# --- parts ----------------------------------------------------------------------------------------


def test_previews_are_the_augmentation_of_the_training() -> None:
    images = list(three_splits()["train"][0][:3])
    changes = {"augment": {"flip_p": 0.0, "rotate_deg": 0.0, "zoom_frac": 0.0, "shift_frac": 0.0}}
    light = {"brightness_frac": 0.0, "contrast_frac": 0.0, "erase_p": 0.0}
    config = small_config(
        {"augment": {**changes["augment"], **light}, "data.image_size": 48, "data.crop": 48}
    )
    for image, preview in zip(images, previews(config, images), strict=True):
        assert len(preview.augmented) == NUM_PREVIEWS
        assert np.array_equal(preview.original, image)
        assert all(np.array_equal(version, image) for version in preview.augmented)
    strong = small_config({"data.image_size": 48, "data.crop": 40, "data.equalize": "clahe"})
    (preview, *_) = previews(strong, images)
    assert preview.original.shape == (48, 48)
    assert not np.array_equal(preview.original, images[0])
    assert {version.shape for version in preview.augmented} == {(40, 40)}
    assert len({version.tobytes() for version in preview.augmented}) == NUM_PREVIEWS
    again = previews(strong, images)[0]
    assert [v.tobytes() for v in again.augmented] == [v.tobytes() for v in preview.augmented]


def test_bars_share_one_scale_with_the_published_numbers() -> None:
    one, two = bars({"a": 50, "b": 150}, {"a": 200, "b": 150})
    assert one.width == 45.0
    assert one.published == 180.0
    assert two.width == two.published == 135.0
    assert two.text == "150 (75.0 %)"
    assert bars({"a": 0}, {})[0].width == 0
    assert bars({"a": 1}, {})[0].published is None


def test_the_histogram_ends_do_not_flatten_the_rest() -> None:
    histogram = np.zeros(256, np.int64)
    histogram[0], histogram[10], histogram[11] = 1_000_000, 100, 50
    path = histogram_path(histogram)
    assert path.startswith("M0 120L0 0.0H2")
    assert "L20 0.0H22" in path
    assert "L22 60.0H24" in path
    assert "nan" not in histogram_path(np.zeros(256, np.int64))


def test_pictures_and_sheets_are_lossless() -> None:
    images = list(three_splits()["train"][0][:7])
    sheet = contact_sheet(images, 3)
    assert sheet.shape == (144, 144)
    assert np.array_equal(sheet[48:96, 96:], images[5])
    assert (sheet[96:, 48:] == 255).all()
    code = data_uri(sheet).removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))), sheet)
