"""The decoder: every kind of image becomes the same grey square, every other file an error row."""

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_ray.data.faces import draw_faces
from fer_ray.errors import DecodeError
from fer_ray.images import decode as module
from fer_ray.images.decode import decode

SIZE = 48
ERROR_TYPES = {"empty", "too_large", "not_an_image", "truncated", "undecodable"}


@functools.cache
def face() -> np.ndarray:
    return draw_faces(1, 5)[0][0]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG that only says how large it is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def grey() -> Image.Image:
    return Image.fromarray(face())


def deep() -> Image.Image:
    return Image.fromarray(face().astype(np.uint16) * 257)


SAME = {
    "L": lambda: encoded(grey()),
    "RGB": lambda: encoded(grey().convert("RGB")),
    "RGBA, opaque": lambda: encoded(grey().convert("RGBA")),
    "LA, opaque": lambda: encoded(grey().convert("LA")),
    "P": lambda: encoded(grey().convert("P")),
    "16 bits, PNG": lambda: encoded(deep()),
    "16 bits, TIFF": lambda: encoded(deep(), "TIFF"),
    "16 bits, PGM": lambda: b"P5 48 48 65535\n" + (face().astype(">u2") * 257).tobytes(),
    "floats 0..1, TIFF": lambda: encoded(Image.fromarray(face().astype(np.float32) / 255), "TIFF"),
    "CMYK, TIFF": lambda: encoded(grey().convert("CMYK"), "TIFF"),
    "BMP": lambda: encoded(grey(), "BMP"),
    "WEBP": lambda: encoded(grey(), "WEBP", lossless=True),
    "GIF": lambda: encoded(grey(), "GIF"),
    "animated GIF": lambda: encoded(
        grey(), "GIF", save_all=True, append_images=[Image.new("L", (SIZE, SIZE), 255)]
    ),
    "MPO": lambda: encoded(grey(), "MPO", quality=100, save_all=True, append_images=[grey()]),
    "animated WEBP": lambda: encoded(
        grey(), "WEBP", save_all=True, append_images=[Image.new("L", (SIZE, SIZE))], lossless=True
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_face_in_every_form(kind: str) -> None:
    decoded = decode(SAME[kind](), SIZE)
    assert decoded.pixels.shape == (SIZE, SIZE)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.width_px, decoded.height_px) == (SIZE, SIZE)
    difference = np.abs(decoded.pixels.astype(int) - face())
    assert difference.max() <= (4 if kind == "MPO" else 1)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_same_face_in_a_lossy_jpeg(mode: str) -> None:
    decoded = decode(encoded(grey().convert(mode), "JPEG", quality=95), SIZE)
    assert np.abs(decoded.pixels.astype(int) - face()).mean() < 3


def test_one_bit_is_black_and_white() -> None:
    pixels = decode(encoded(grey().convert("1")), SIZE).pixels
    assert set(np.unique(pixels)) == {0, 255}


def test_colours_become_grey_by_itu_r_601() -> None:
    for colour, luma in {(255, 0, 0): 76, (0, 255, 0): 150, (0, 0, 255): 29}.items():
        pixels = decode(encoded(Image.new("RGB", (8, 8), colour)), 16).pixels
        assert np.abs(pixels.astype(int) - luma).max() <= 1


def half_transparent() -> dict[str, bytes]:
    """Left white and opaque, right transparent black, in every mode that can say so."""
    image = Image.new("L", (SIZE, SIZE), 0)
    image.paste(255, (0, 0, SIZE // 2, SIZE))
    alpha = image.copy()
    rgba = image.convert("RGBA")
    rgba.putalpha(alpha)
    la = image.convert("LA")
    la.putalpha(alpha)
    return {
        "RGBA": encoded(rgba),
        "LA": encoded(la),
        "L with a transparent grey": encoded(image, transparency=0),
        "RGB with a transparent colour": encoded(image.convert("RGB"), transparency=(0, 0, 0)),
        "P with a transparent entry": encoded(image.convert("P"), transparency=0),
        "GIF": encoded(image.convert("P"), "GIF", transparency=0),
        "WEBP": encoded(rgba, "WEBP", lossless=True),
    }


@pytest.mark.parametrize("kind", half_transparent())
def test_transparency_lies_over_mid_grey(kind: str) -> None:
    pixels = decode(half_transparent()[kind], SIZE).pixels
    assert (pixels[:, : SIZE // 2] == 255).all()
    assert (np.abs(pixels[:, SIZE // 2 :].astype(int) - 128) <= 1).all()


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_exif_rotation_is_applied(orientation: int, turn: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(grey(), "PNG", exif=exif), SIZE)
    assert np.array_equal(decoded.pixels, turn(face()))


def test_a_turned_image_reports_its_displayed_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(Image.new("L", (200, 100)), "JPEG", exif=exif), SIZE)
    assert (decoded.width_px, decoded.height_px) == (100, 200)


def test_the_centre_square_is_kept() -> None:
    wide = Image.new("L", (300, 100), 0)
    wide.paste(200, (96, 0, 204, 100))  # the resize looks a little beyond its box
    decoded = decode(encoded(wide), SIZE)
    assert (decoded.pixels == 200).all()
    assert (decoded.width_px, decoded.height_px) == (300, 100)
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert (decode(encoded(tall), SIZE).pixels == 200).all()


def test_a_large_jpeg_keeps_its_size_though_it_is_decoded_smaller() -> None:
    large = grey().resize((960, 960), Image.Resampling.BICUBIC)
    decoded = decode(encoded(large, "JPEG", quality=95), SIZE)
    assert (decoded.width_px, decoded.height_px) == (960, 960)
    assert np.abs(decoded.pixels.astype(int) - face()).mean() < 6


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((480, 480), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encoded(Image.fromarray(stripes)), SIZE).pixels
    assert np.abs(pixels[:, 1:-1].astype(int) - 128).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_and_thin_images(size: tuple[int, int]) -> None:
    decoded = decode(encoded(Image.new("L", size, 77)), SIZE)
    assert decoded.pixels.shape == (SIZE, SIZE)
    assert (decoded.pixels == 77).all()
    assert (decoded.width_px, decoded.height_px) == size


# --- errors ---------------------------------------------------------------------------------------


def error_of(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(data, SIZE)
    return caught.value


def test_each_kind_of_fault_has_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert error_of(b"").error_type == "empty"
    assert error_of(b"These are words, not an image.").error_type == "not_an_image"
    assert error_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>").error_type == "not_an_image"
    assert error_of(png(60_000, 60_000)).error_type == "too_large"
    assert error_of(png(2**31 - 1, 2**31 - 1)).error_type == "too_large"
    assert error_of(png(11_000, 9_100)).error_type == "too_large"
    assert error_of(SAME["L"]()[:200]).error_type == "truncated"
    assert error_of(png(SIZE, SIZE)).error_type in ERROR_TYPES
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    assert error_of(SAME["L"]()).error_type == "too_large"


def test_an_outside_program_is_never_asked() -> None:
    # Pillow hands EPS to Ghostscript.
    assert (
        error_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").error_type == "not_an_image"
    )


def in_the_tree(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_PIXELS", 1_000_000)  # for speed: some examples claim millions
        fault = None
        try:
            decoded = decode(data, 32)
        except DecodeError as error:
            fault = error
    if fault is None:
        assert decoded.pixels.shape == (32, 32)
        assert decoded.pixels.dtype == np.uint8
    else:
        assert fault.error_type in ERROR_TYPES
        assert 0 < len(fault.message) <= 200


MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBP"]
MAGIC += [
    b"II*\0",
    b"MM\0*",
    b"P5 9 9 255\n",
    b"P6 ",
    b"Pf 9 9 -1\n",
    b"\xff\xd8\xff\xe1\0\x20Exif\0\0",
]


@settings(max_examples=300)
@given(magic=st.sampled_from(MAGIC), data=st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_outside_the_tree(magic: bytes, data: bytes) -> None:
    in_the_tree(magic + data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncations_never_raise_outside_the_tree(form: str) -> None:
    whole = encoded(grey(), form)
    step = max(1, len(whole) // 60)
    for length in [*range(0, len(whole), step), *range(len(whole) - 12, len(whole))]:
        in_the_tree(whole[:length])


@settings(max_examples=200)
@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_changed_bytes_never_raise_outside_the_tree(
    form: str, changes: list[tuple[float, int]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}
    data = bytearray(encoded(grey(), form, **options))
    for share, value in changes:
        data[int(share * (len(data) - 1))] = value
    in_the_tree(bytes(data))


def test_a_truncated_image_is_an_error_and_not_half_a_face() -> None:
    for form in ("JPEG", "PNG"):
        whole = encoded(grey(), form)
        assert error_of(whole[: len(whole) // 2]).error_type == "truncated"
