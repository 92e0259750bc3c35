"""Faces in photos: geometry as arithmetic, detection on drawn faces that a real detector finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DecodeError, UserError
from fer_ray.images import detect
from fer_ray.images.detect import Face, build_detector, cut_faces, kind_of, square_around
from fer_ray.score.options import RowOptions
from tests.photos import encoded, photo
from tests.scoring import rows_of, scored


def found_at(*faces: Face) -> Callable[[Image.Image], list[Face]]:
    """A detector that finds these, in the pixels of the picture that it is given."""
    return lambda _photo: list(faces)


# --- geometry -----------------------------------------------------------------------------------


@given(
    x=st.floats(-50, 900),
    y=st.floats(-50, 700),
    w=st.floats(1, 900),
    h=st.floats(1, 900),
    margin=st.floats(0, 2),
    width=st.integers(1, 900),
    height=st.integers(1, 700),
)
def test_the_square_lies_inside_and_is_a_square(
    x: float, y: float, w: float, h: float, margin: float, width: int, height: int
) -> None:
    left, top, right, bottom = square_around(Face(x, y, w, h, 1.0), margin, width, height)
    assert right - left == pytest.approx(bottom - top)
    assert left >= -1e-6
    assert top >= -1e-6
    assert right <= width + 1e-6
    assert bottom <= height + 1e-6
    wanted = min(max(w, h) * (1 + 2 * margin), width, height)
    assert right - left == pytest.approx(wanted)


def test_a_square_in_the_middle_is_centred_on_its_face() -> None:
    assert square_around(Face(40, 50, 20, 10, 1.0), 0.25, 200, 200) == (35, 40, 65, 70)


def test_the_cut_shows_what_lies_in_the_box() -> None:
    canvas = Image.new("L", (300, 200), 0)
    canvas.paste(250, (100, 60, 160, 120))
    cut, width, height = cut_faces(encoded(canvas), found_at(Face(100, 60, 60, 60, 0.9)), 48, 0.0)
    assert (width, height) == (300, 200)
    assert (cut[0].pixels[2:-2, 2:-2] == 250).all()
    wide, *_ = cut_faces(encoded(canvas), found_at(Face(100, 60, 60, 60, 0.9)), 48, 0.5)
    assert wide[0].pixels[0, 0] == 0
    assert (wide[0].pixels[14:34, 14:34] == 250).all()


def test_boxes_are_told_in_the_photos_own_pixels() -> None:
    """A photo larger than what is searched: the box is scaled back, the cut is of the photo."""
    canvas = Image.new("L", (4096, 2048), 0)
    canvas.paste(200, (1024, 512, 2048, 1536))
    searched: list[tuple[int, int]] = []

    def find(small: Image.Image) -> list[Face]:
        searched.append(small.size)
        scale = small.width / 4096
        return [Face(1024 * scale, 512 * scale, 1024 * scale, 1024 * scale, 1.0)]

    for data in (encoded(canvas), encoded(canvas, "JPEG", quality=90)):
        (cut,), width, height = cut_faces(data, find, 48, 0.0)
        assert (width, height) == (4096, 2048)
        assert (cut.face.x, cut.face.y, cut.face.w) == pytest.approx((1024, 512, 1024))
        assert np.abs(cut.pixels[1:-1, 1:-1].astype(int) - 200).max() <= 2
    assert searched == [(1024, 512)] * 2


def test_faces_are_told_from_left_to_right() -> None:
    faces = [Face(200, 5, 50, 50, 0.8), Face(20, 90, 50, 50, 0.7), Face(20, 10, 50, 50, 0.9)]
    cut, *_ = cut_faces(encoded(photo()), found_at(*faces), 48, 0.0)
    assert [(each.face.x, each.face.y) for each in cut] == [(20, 10), (20, 90), (200, 5)]


def test_a_broken_photo_is_a_decode_error() -> None:
    whole = encoded(photo((10, 10)), "JPEG")
    with pytest.raises(DecodeError) as caught:
        cut_faces(whole[: len(whole) // 2], found_at(), 48, 0.0)
    assert caught.value.error_type == "truncated"


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hare", "yunet", "yunet:", "yunet:/gone.onnx", ""])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UserError, match="--faces"):
        kind_of(name)


def test_without_opencv_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r"fer-ray\[faces\]"):
        build_detector("haar")


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"words")
    with pytest.raises(UserError, match="cannot read"):
        build_detector(f"yunet:{tmp_path}/x.onnx")


# --- a real detector ------------------------------------------------------------------------------


def test_haar_finds_drawn_faces_where_they_are() -> None:
    find = build_detector("haar")
    cut, *_ = cut_faces(encoded(photo((40, 80), (400, 80))), find, 48, 0.0)
    assert len(cut) == 2
    for each, left in zip(cut, (40, 400), strict=True):
        centre = (each.face.x + each.face.w / 2, each.face.y + each.face.h / 2)
        assert centre == pytest.approx((left + 80, 160), abs=20)
        assert 100 <= each.face.w <= 200
    assert cut_faces(encoded(photo()), find, 48, 0.0)[0] == []
    assert cut_faces(encoded(Image.new("L", (5, 5))), find, 48, 0.0)[0] == []


def test_a_job_has_one_row_a_face(tmp_path: Path, predictor: Predictor) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    photo((40, 80), (400, 80)).save(source / "two.png")
    photo().save(source / "none.png")
    (source / "words.png").write_bytes(b"words")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo((240, 80)).transpose(Image.Transpose.ROTATE_90).save(source / "turned.jpg", exif=exif)
    report = scored(source, tmp_path / "out", predictor, rows=RowOptions(faces="haar"))
    rows = {}
    for row in rows_of(tmp_path / "out").to_pylist():
        rows.setdefault(Path(row["path"]).name, []).append(row)
    assert {name: [row["status"] for row in found] for name, found in rows.items()} == {
        "none.png": ["no_face"],
        "turned.jpg": ["ok"],
        "two.png": ["ok", "ok"],
        "words.png": ["error"],
    }
    assert [row["face_index"] for row in rows["two.png"]] == [0, 1]
    assert rows["two.png"][0]["box_x"] < rows["two.png"][1]["box_x"]
    assert rows["none.png"][0]["box_x"] is None
    (turned,) = rows["turned.jpg"]
    assert (turned["width"], turned["height"]) == (640, 320)
    assert turned["box_x"] + turned["box_w"] / 2 == pytest.approx(320, abs=20)
    assert report.status == {"ok": 3, "no_face": 1, "error": 1}
    assert detect.MARGIN_FRAC["haar"] == 0.0


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    from fer_ray.bundle.load import load_bundle
    from tests.bundles import tiny_bundle

    path = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return Predictor(load_bundle(path), "fp32", "cpu")
