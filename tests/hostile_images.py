"""A folder of everything that goes wrong with image files; docs/score.md shows it as a table."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_ray.data.faces import draw_faces

SIDE = 96
OK = "ok, as the plain face"
OWN = "ok"


def face() -> Image.Image:
    """The plain face, 96 x 96 grey."""
    pixels = draw_faces(1, 5)[0][0]
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rgb() -> Image.Image:
    return face().convert("RGB")


def jpeg(**options: Any) -> bytes:
    return encoded(rgb(), "JPEG", quality=95, **options)


def turned(orientation: int) -> bytes:
    """The face stored turned, with the Exif mark that turns it back."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(rgb().transpose(back), "JPEG", quality=95, exif=exif)


def sixteen_bit(form: str) -> bytes:
    return encoded(Image.fromarray(np.asarray(face()).astype(np.uint16) * 257), form)


def png_claiming(width: int, height: int, *, depth: int = 8, rows: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * (rows or 100), 9)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def flipped(data: bytes, share: float) -> bytes:
    place = int(len(data) * share)
    return (
        data[:place] + bytes(255 - value for value in data[place : place + 40]) + data[place + 40 :]
    )


def animated(form: str) -> bytes:
    other = Image.new("RGB", (SIDE, SIDE), "white")
    options = {"lossless": True} if form == "WEBP" else {}
    return encoded(rgb(), form, save_all=True, append_images=[other], **options)


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        name: of the file.
        what: in words, for the docs.
        becomes: `OK`, `OWN`, an error type, or `skipped (reason)`.
        make: writes it.
    """

    name: str
    what: str
    becomes: str
    make: Callable[[Path], None]


def of_bytes(name: str, what: str, becomes: str, data: Callable[[], bytes]) -> Case:
    return Case(name, what, becomes, lambda path: _write(path, data()))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def opaque(mode: str) -> Image.Image:
    return face().convert(mode)


def palette() -> Image.Image:
    return face().convert("P")


ODD_BUT_GOOD = [
    of_bytes("plain.png", "PNG, grey", OK, lambda: encoded(face(), "PNG")),
    of_bytes("rgb.png", "PNG, RGB", OK, lambda: encoded(rgb(), "PNG")),
    of_bytes("alpha.png", "PNG, RGBA, opaque", OK, lambda: encoded(opaque("RGBA"), "PNG")),
    of_bytes("grey-alpha.png", "PNG, grey with alpha", OK, lambda: encoded(opaque("LA"), "PNG")),
    of_bytes("palette.png", "PNG, palette", OK, lambda: encoded(palette(), "PNG")),
    of_bytes("deep.png", "PNG, 16 bits a pixel", OK, lambda: sixteen_bit("PNG")),
    of_bytes("deep.tif", "TIFF, 16 bits a pixel", OK, lambda: sixteen_bit("TIFF")),
    of_bytes(
        "float.tif",
        "TIFF, floats 0 to 1",
        OK,
        lambda: encoded(Image.fromarray(np.asarray(face(), np.float32) / 255), "TIFF"),
    ),
    of_bytes("plain.jpg", "JPEG, RGB", OK, jpeg),
    of_bytes("grey.jpg", "JPEG, grey", OK, lambda: encoded(face(), "JPEG", quality=95)),
    of_bytes("progressive.jpg", "JPEG, progressive", OK, lambda: jpeg(progressive=True)),
    of_bytes("cmyk.jpg", "JPEG, CMYK", OK, lambda: encoded(opaque("CMYK"), "JPEG", quality=95)),
    of_bytes("cmyk.tif", "TIFF, CMYK", OK, lambda: encoded(opaque("CMYK"), "TIFF")),
    of_bytes(
        "packed.tif", "TIFF, LZW", OK, lambda: encoded(face(), "TIFF", compression="tiff_lzw")
    ),
    of_bytes("plain.bmp", "BMP", OK, lambda: encoded(rgb(), "BMP")),
    of_bytes("plain.webp", "WEBP, lossless", OK, lambda: encoded(rgb(), "WEBP", lossless=True)),
    of_bytes("plain.gif", "GIF", OK, lambda: encoded(face(), "GIF")),
    of_bytes("plain.ppm", "PPM", OK, lambda: encoded(rgb(), "PPM")),
    of_bytes("plain.pgm", "PGM", OK, lambda: encoded(face(), "PPM")),
    of_bytes("animated.gif", "animated GIF: its first frame", OK, lambda: animated("GIF")),
    of_bytes("animated.webp", "animated WEBP: its first frame", OK, lambda: animated("WEBP")),
    of_bytes("animated.png", "animated PNG: its first frame", OK, lambda: animated("PNG")),
    of_bytes("pages.tif", "TIFF of two pages: the first", OK, lambda: animated("TIFF")),
    of_bytes(
        "stereo.jpg",
        "MPO of two pictures: the first",
        OK,
        lambda: encoded(rgb(), "MPO", quality=95, save_all=True, append_images=[rgb()]),
    ),
    *[
        of_bytes(f"turned{n}.jpg", f"JPEG, Exif orientation {n}", OK, lambda n=n: turned(n))
        for n in range(2, 9)
    ],
    of_bytes("png.jpg", "a PNG named .jpg", OK, lambda: encoded(face(), "PNG")),
    of_bytes("jpeg.png", "a JPEG named .png", OK, jpeg),
    of_bytes("trailing.jpg", "JPEG with words behind its end", OK, lambda: jpeg() + b"words" * 99),
    of_bytes("UPPER.JPG", "name in capitals", OK, jpeg),
    of_bytes(
        "comment.jpg", "JPEG with a comment of 60 kB", OK, lambda: jpeg(comment=b"x" * 60_000)
    ),
]

OWN_ANSWER = [
    of_bytes("one.png", "1 x 1", OWN, lambda: encoded(Image.new("L", (1, 1), 9), "PNG")),
    of_bytes("wide.png", "1000 x 1", OWN, lambda: encoded(Image.new("L", (1000, 1), 9), "PNG")),
    of_bytes("tall.png", "1 x 1000", OWN, lambda: encoded(Image.new("L", (1, 1000), 9), "PNG")),
    of_bytes("bits.png", "PNG, 1 bit a pixel", OWN, lambda: encoded(opaque("1"), "PNG")),
    of_bytes(
        "clear.png",
        "PNG, wholly transparent: mid-grey",
        OWN,
        lambda: encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"),
    ),
    of_bytes(
        "vast.jpg",
        "JPEG, 9000 x 9000",
        OWN,
        lambda: encoded(Image.new("L", (9000, 9000), 99), "JPEG", quality=10),
    ),
]

BROKEN = [
    of_bytes("empty.jpg", "no byte", "empty", lambda: b""),
    of_bytes("byte.jpg", "one byte", "not_an_image", lambda: b"\xff"),
    of_bytes("magic.jpg", "a JPEG's first two bytes", "not_an_image", lambda: b"\xff\xd8"),
    of_bytes("header.jpg", "JPEG cut in its header", "undecodable", lambda: jpeg()[:40]),
    of_bytes("scan.jpg", "JPEG cut after half", "truncated", lambda: cut(jpeg(), 0.6)),
    of_bytes("late.jpg", "JPEG cut near its end", "truncated", lambda: cut(jpeg(), 0.97)),
    of_bytes(
        "cut-progressive.jpg",
        "progressive JPEG cut after half",
        "truncated",
        lambda: cut(jpeg(progressive=True), 0.6),
    ),
    of_bytes("magic.png", "PNG's signature alone", "not_an_image", lambda: b"\x89PNG\r\n\x1a\n"),
    of_bytes(
        "cut.png", "PNG cut after half", "truncated", lambda: cut(encoded(face(), "PNG"), 0.5)
    ),
    of_bytes(
        "checksum.png",
        "PNG with a wrong checksum",
        "undecodable",
        lambda: flipped(encoded(face(), "PNG"), 0.5),
    ),
    of_bytes(
        "cut.gif", "GIF cut after half", "truncated", lambda: cut(encoded(face(), "GIF"), 0.5)
    ),
    of_bytes(
        "cut.bmp", "BMP cut after half", "truncated", lambda: cut(encoded(face(), "BMP"), 0.5)
    ),
    of_bytes(
        "cut.webp",
        "WEBP cut after half",
        "undecodable",
        lambda: cut(encoded(rgb(), "WEBP", lossless=True), 0.5),
    ),
    of_bytes(
        "cut.tif", "TIFF cut after half", "truncated", lambda: cut(encoded(face(), "TIFF"), 0.5)
    ),
    of_bytes(
        "cut.pgm", "PGM cut after half", "truncated", lambda: cut(encoded(face(), "PPM"), 0.5)
    ),
    of_bytes("words.jpg", "text named .jpg", "not_an_image", lambda: b"These are words."),
    of_bytes("page.jpg", "HTML named .jpg", "not_an_image", lambda: b"<html><script>1</script>"),
    of_bytes("drawing.png", "SVG named .png", "not_an_image", lambda: b"<svg xmlns='x'/>"),
    of_bytes("archive.jpg", "a zip named .jpg", "not_an_image", lambda: b"PK\x03\x04" + b"x" * 99),
    of_bytes("document.jpg", "a PDF named .jpg", "not_an_image", lambda: b"%PDF-1.7\n%%EOF"),
    of_bytes(
        "script.png",
        "PostScript named .png",
        "not_an_image",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ),
    of_bytes("zeros.jpg", "10 kB of zeros", "not_an_image", lambda: bytes(10_000)),
    of_bytes(
        "huge.png", "PNG that says 20000 x 20000", "too_large", lambda: png_claiming(20_000, 20_000)
    ),
    of_bytes(
        "bomb.png",
        "PNG of 12000 x 12000 in 20 kB",
        "too_large",
        lambda: png_claiming(12_000, 12_000, rows=12_000 * 1_000),
    ),
    of_bytes(
        "endless.png",
        "PNG that says 2^31 - 1 a side",
        "too_large",
        lambda: png_claiming(2**31 - 1, 2**31 - 1),
    ),
    of_bytes("none.png", "PNG that says 0 x 0", "not_an_image", lambda: png_claiming(0, 0)),
]


def _link(path: Path, target: str) -> None:
    path.symlink_to(target)


def _unreadable(path: Path) -> None:
    path.write_bytes(jpeg())
    path.chmod(0)


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


def _hidden_folder(path: Path) -> None:
    path.mkdir()
    (path / "face.jpg").write_bytes(jpeg())


PLACES = [
    Case("broken-link.jpg", "a link that leads nowhere", "missing", lambda p: _link(p, "gone")),
    Case("circle.jpg", "a link to itself", "unreadable", _circle),
    Case("link.jpg", "a link to a face", OK, lambda p: _link(p, "plain.jpg")),
    Case(
        "linked-folder.jpg",
        "a link to a folder",
        "skipped (link_to_folder)",
        lambda p: _link(p, "."),
    ),
    Case("folder.jpg", "a folder named .jpg, empty", "nothing", _folder),
    Case("pipe.jpg", "a FIFO", "skipped (special)", lambda p: os.mkfifo(p)),
    Case(".hidden.jpg", "a hidden file", "skipped (hidden)", lambda p: _write(p, jpeg())),
    Case(".hidden", "a hidden folder with a face", "skipped (hidden)", _hidden_folder),
    Case("notes.txt", "another name", "skipped (other_name)", lambda p: _write(p, b"words")),
    Case("noname", "a face without a suffix", "skipped (other_name)", lambda p: _write(p, jpeg())),
    Case("sp ace.jpg", "a space in the name", OK, lambda p: _write(p, jpeg())),
    Case("new\nline.jpg", "a newline in the name", OK, lambda p: _write(p, jpeg())),
    Case("quote'\".jpg", "quotes in the name", OK, lambda p: _write(p, jpeg())),
    Case("日本 😀.jpg", "Unicode in the name", OK, lambda p: _write(p, jpeg())),
    Case("e\u0301.jpg", "a combining accent in the name", OK, lambda p: _write(p, jpeg())),
    Case(
        os.fsdecode(b"bad\xff\xfe.jpg"),
        r"bytes that are not UTF-8: `\xff\xfe` in the row",
        OK,
        lambda p: _write(p, jpeg()),
    ),
    Case("x" * 251 + ".jpg", "255 bytes of name", OK, lambda p: _write(p, jpeg())),
    Case("<b>&amp;.jpg", "HTML in the name", OK, lambda p: _write(p, jpeg())),
    Case("-rf.jpg", "a name like an option", OK, lambda p: _write(p, jpeg())),
    Case("a=b%20*.jpg", "a name like a pattern", OK, lambda p: _write(p, jpeg())),
    Case("locked.jpg", "not allowed to be read", "unreadable", _unreadable),
    Case("removed.jpg", "removed after it was listed", "missing", lambda p: _write(p, jpeg())),
]

CASES = [*ODD_BUT_GOOD, *OWN_ANSWER, *BROKEN, *PLACES]


def table() -> str:
    """The cases as Markdown, for docs/score.md."""
    lines = ["| file | becomes |", "|---|---|"]
    lines += [f"| {case.what} | {case.becomes} |" for case in CASES]
    return "\n".join(lines)
