"""Faces in photos: where they are, and the square that is cut out of the photo for each.

Detectors are OpenCV's (the extra `fer-ray[faces]`): `haar` is the frontal-face cascade that its
wheel brings (Viola and Jones 2001), `yunet:PATH` the network of Wu et al. 2023 from an ONNX file
of the user's. FER2013's own faces were found by the former, which is why its boxes need no margin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fer_ray.errors import UserError
from fer_ray.images.decode import centre_square, grey_of, open_image

MARGIN_FRAC = {"haar": 0.0, "yunet": 0.2}
"""Added to each side of a box, as a share of its longer side: YuNet's boxes lie tight."""

DETECT_PX = 1024
"""Photos are searched at this longer side at most; a face of 48 pixels in 4,000 still has 12."""

CUT_PX = 2048
"""JPEG photos are decoded no smaller than this, so that a cut face keeps its detail."""

MIN_FACE_PX = 16
"""Smaller finds, in pixels of the searched picture, are taken for noise."""

HAAR_FILE = "haarcascade_frontalface_default.xml"
YUNET_SCORE = 0.7
"""YuNet's own scores below are not faces (OpenCV's examples use 0.6 to 0.9)."""


@dataclass(frozen=True)
class Face:
    """One face found.

    Attributes:
        x, y, w, h: the detector's box, pixels of the photo as displayed.
        score: the detector's, higher is surer; haar's is not a probability.
    """

    x: float
    y: float
    w: float
    h: float
    score: float


@dataclass(frozen=True)
class CutFace:
    """A face and its picture, uint8 [size, size]."""

    face: Face
    pixels: npt.NDArray[np.uint8]


Find = Callable[[Image.Image], list[Face]]
"""From a photo (any mode Pillow converts to RGB) to the faces in it, in that photo's pixels."""


def kind_of(name: str) -> str:
    """`none`, `haar` or `yunet` of what the user wrote.

    Raises:
        UserError: another word, or no file behind `yunet:`.
    """
    kind, _, path = name.partition(":")
    if kind == "yunet" and path:
        if not Path(path).is_file():
            raise UserError(
                f"--faces yunet: there is no file {path}",
                "Give the path of a face_detection_yunet ONNX file (OpenCV's model zoo has it).",
            )
        return kind
    if name in ("none", "haar"):
        return name
    raise UserError(f"--faces is none, haar or yunet:PATH, but got {name!r}")


def build_detector(name: str) -> Find:
    """A detector by its name, `haar` or `yunet:PATH`.

    Raises:
        UserError: OpenCV is not installed, or lacks or refuses the detector's file.
    """
    kind = kind_of(name)
    cv2 = _opencv(kind)
    cv2.setNumThreads(1)  # photos are decoded in parallel already
    if kind == "haar":
        path = Path(str(cv2.data.haarcascades)) / HAAR_FILE
        cascade = cv2.CascadeClassifier(str(path))
        if cascade.empty():
            raise UserError(
                f"--faces haar: this OpenCV ({cv2.__version__}) brings no {HAAR_FILE}",
                "Install the extra: pip install 'fer-ray[faces]' (OpenCV 4).",
            )
        return lambda photo: _haar(cascade, photo)
    path_text = name.partition(":")[2]
    try:
        network = cv2.FaceDetectorYN.create(path_text, "", (320, 320), YUNET_SCORE, 0.3, 5000)
    except cv2.error as error:
        raise UserError(f"--faces yunet: OpenCV cannot read {path_text}: {error.err}") from error
    return lambda photo: _yunet(network, photo)


def _opencv(kind: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"--faces {kind} needs OpenCV, which is not installed",
            "Install the extra: pip install 'fer-ray[faces]'.",
        ) from error
    return cv2


def cut_faces(
    data: bytes, find: Find, size_px: int, margin_frac: float, max_pixels: int | None = None
) -> tuple[list[CutFace], int, int]:
    """Find the faces of one photo and cut each out.

    Args:
        data: the whole file.
        find: the detector.
        size_px: side of the cut pictures.
        margin_frac: see `MARGIN_FRAC`.
        max_pixels: see `fer_ray.images.decode.decode`.

    Returns:
        the faces from left to right and top to bottom; the photo's width and height as displayed.

    Raises:
        DecodeError: the photo cannot be decoded.
    """
    opened = open_image(data, CUT_PX, max_pixels)
    photo = opened.image
    small = photo
    if max(photo.size) > DETECT_PX:
        small = photo.convert("RGB") if photo.mode not in ("L", "RGB") else photo
        small = small.resize(_within(small.size, DETECT_PX), Image.Resampling.BILINEAR)
    scale = opened.width_px / small.width  # from the searched picture to the photo
    faces = [scaled(face, scale) for face in find(small)]
    faces.sort(key=lambda face: (face.x, face.y, face.w, face.h))
    if not faces:
        return [], opened.width_px, opened.height_px
    grey = grey_of(photo)
    shrink = grey.width / opened.width_px
    cut = []
    for face in faces:
        box = square_around(scaled(face, shrink), margin_frac, grey.width, grey.height)
        cut.append(CutFace(face, centre_square(grey, size_px, box)))
    return cut, opened.width_px, opened.height_px


def scaled(face: Face, factor: float) -> Face:
    """The same face in a picture `factor` times as large."""
    return Face(face.x * factor, face.y * factor, face.w * factor, face.h * factor, face.score)


def square_around(
    face: Face, margin_frac: float, width: int, height: int
) -> tuple[float, float, float, float]:
    """The square that is cut: the longer side plus a margin each side, moved to lie inside.

    Args:
        face: in pixels of the picture.
        margin_frac: share of the longer side added on each side.
        width, height: of the picture; the square is never larger than its shorter side.

    Returns:
        left, top, right, bottom in pixels.
    """
    side = min(max(face.w, face.h) * (1 + 2 * margin_frac), float(min(width, height)))
    left = face.x + face.w / 2 - side / 2
    top = face.y + face.h / 2 - side / 2
    left = min(max(left, 0.0), width - side)
    top = min(max(top, 0.0), height - side)
    return left, top, left + side, top + side


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = longest / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _haar(cascade: Any, photo: Image.Image) -> list[Face]:
    grey = np.asarray(grey_of(photo), dtype=np.uint8)
    if min(grey.shape) < MIN_FACE_PX:
        return []
    boxes, _, weights = cascade.detectMultiScale3(
        grey,
        scaleFactor=1.1,
        minNeighbors=5,
        minSize=(MIN_FACE_PX, MIN_FACE_PX),
        outputRejectLevels=True,
    )
    return [_face(box, weight) for box, weight in zip(boxes, np.ravel(weights), strict=True)]


def _yunet(network: Any, photo: Image.Image) -> list[Face]:
    if min(photo.size) < MIN_FACE_PX:
        return []
    rgb = np.asarray(photo.convert("RGB"), dtype=np.uint8)
    network.setInputSize((rgb.shape[1], rgb.shape[0]))
    _, found = network.detect(np.ascontiguousarray(rgb[:, :, ::-1]))
    if found is None:
        return []
    return [
        _face(row[:4], row[-1])
        for row in found
        if np.isfinite(row).all() and min(row[2], row[3]) >= 1
    ]


def _face(box: Iterable[Any], score: Any) -> Face:
    x, y, w, h = (float(value) for value in box)
    return Face(x, y, w, h, float(score))
