"""The one decoder: bytes of any image to a square grey uint8 image.

Grey by ITU-R 601, EXIF rotation applied, first frame of an animation, alpha over mid-grey,
centre square, antialiased resize. Used by import, predict, score and serve alike.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_ray.errors import DecodeError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Formats that Pillow decodes itself, without an outside program. Its JPEG includes MPO."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""File names taken for images when a folder is walked, in lower case."""

MAX_PIXELS = 100_000_000
"""An image that says it is larger is refused before it is decoded (10,000 x 10,000)."""

MAX_BYTES = 64 * 1024 * 1024
"""A file above this is refused before it is parsed."""

_HALF_GREY = 128
_ORIENTATION = 0x0112
"""Exif's tag."""


@dataclass(frozen=True)
class Decoded:
    """One decoded image.

    Attributes:
        pixels: uint8 [size, size], 0-255.
        width_px, height_px: of the original, as displayed.
    """

    pixels: npt.NDArray[np.uint8]
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Opened:
    """One image as Pillow holds it, turned as it is displayed.

    Attributes:
        image: any mode; a large JPEG may be decoded at 1/2, 1/4 or 1/8 of its size.
        width_px, height_px: of the original, as displayed.
    """

    image: Image.Image
    width_px: int
    height_px: int


def decode(data: bytes, size_px: int, max_pixels: int | None = None) -> Decoded:
    """Decode one image.

    Args:
        data: the whole file.
        size_px: side of the result.
        max_pixels: an image that says it has more is refused; `MAX_PIXELS` where it is None.

    Raises:
        DecodeError: `empty`, `too_large`, `not_an_image`, `truncated` or `undecodable`.
    """
    with _faults_told():
        opened = _load(data, 2 * size_px, max_pixels)
        pixels = centre_square(grey_of(opened.image), size_px)
    return Decoded(pixels, opened.width_px, opened.height_px)


def open_image(data: bytes, least_px: int, max_pixels: int | None = None) -> Opened:
    """Open one image for whoever looks for something in it, such as faces.

    Args:
        data: the whole file.
        least_px: a JPEG is decoded smaller as long as both its sides keep this many pixels.
        max_pixels: see `decode`.

    Raises:
        DecodeError: see `decode`.
    """
    with _faults_told():
        opened = _load(data, least_px, max_pixels)
        opened.image.load()
        return opened


def centre_square(
    grey: Image.Image, size_px: int, box: tuple[float, float, float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """The centre square of a grey image, or `box` (left, top, right, bottom), resized.

    Returns:
        uint8 [size_px, size_px], 0-255, antialiased.
    """
    if box is None and grey.size != (size_px, size_px):
        side = min(grey.size)
        left, top = (grey.width - side) / 2, (grey.height - side) / 2
        box = (left, top, left + side, top + side)
    if box is not None:
        grey = grey.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)
    return np.asarray(grey, dtype=np.uint8)


def _load(data: bytes, least_px: int, max_pixels: int | None) -> Opened:
    image = _open(data, MAX_PIXELS if max_pixels is None else max_pixels)
    width, height = image.size
    if image.format == "JPEG":
        # Decode straight to 1/2, 1/4 or 1/8 where that still exceeds what is kept.
        image.draft(None, (least_px, least_px))
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return Opened(image, width, height)
    if image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
        width, height = height, width
    return Opened(ImageOps.exif_transpose(image), width, height)


@contextlib.contextmanager
def _faults_told() -> Iterator[None]:
    """Turn whatever Pillow raises on hostile bytes into a `DecodeError`."""
    with warnings.catch_warnings():
        # Size is checked before any pixel is decoded; odd metadata is not our business.
        warnings.simplefilter("ignore")
        try:
            yield
        except DecodeError:
            raise
        except (OSError, SyntaxError, EOFError) as error:
            kind = "truncated" if "truncated" in str(error).lower() else "undecodable"
            raise DecodeError(f"cannot be decoded: {error}"[:200], kind) from error
        except Exception as error:
            # Pillow's parsers raise almost anything on hostile bytes; none of it is our bug.
            raise DecodeError(
                f"cannot be decoded: {type(error).__name__}: {error}"[:200], "undecodable"
            ) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise DecodeError("the file is empty", "empty")
    if len(data) > MAX_BYTES:
        raise DecodeError(f"{len(data):,} bytes; at most {MAX_BYTES:,} are read", "too_large")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise DecodeError(
            f"not an image of a known format ({', '.join(FORMATS)})", "not_an_image"
        ) from error
    except Image.DecompressionBombError as error:
        raise DecodeError(f"more than {max_pixels:,} pixels", "too_large") from error
    except Exception as error:
        raise DecodeError(
            f"header cannot be read: {type(error).__name__}: {error}"[:200], "undecodable"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(
            f"{width} x {height} pixels; at most {max_pixels:,} are decoded", "too_large"
        )
    return image


def grey_of(image: Image.Image) -> Image.Image:
    """Grey by ITU-R 601, mode L; alpha over mid-grey, 16 bits to their upper 8."""
    mode = image.mode
    if mode == "L" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(image, dtype=np.int64)
        return Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    if mode == "F":
        values_f = np.nan_to_num(np.asarray(image, dtype=np.float64))
        scale = 255.0 if values_f.max(initial=0.0) <= 1.0 else 1.0
        return Image.fromarray(np.clip(values_f * scale, 0, 255).astype(np.uint8))
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (_HALF_GREY, _HALF_GREY, _HALF_GREY, 255))
        return Image.alpha_composite(ground, rgba).convert("L")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV", "P"):
        return image.convert("RGB").convert("L")
    return image.convert("L")
