"""Bodies that no honest client sends, each with the statuses that it may be answered with."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.serving import faces

FORM = "multipart/form-data; boundary=b"


@dataclass(frozen=True)
class Hostile:
    """One request.

    Attributes:
        name: for a test's message.
        path: route.
        media_type: of the body.
        body: whole.
        statuses: that are right.
    """

    name: str
    path: str
    media_type: str
    body: bytes
    statuses: tuple[int, ...]


def hostile_requests() -> list[Hostile]:
    """At least 200 of them, the same in every run."""
    return [*_images(), *_bombs(), *_documents(), *_base64(), *_forms(), *_types(), *_tensors()]


def _encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(faces(1)[0])).save(file, kind)
    return file.getvalue()


def _image(name: str, body: bytes, *statuses: int) -> Hostile:
    return Hostile(name, "/v1/predict", "image/png", body, statuses)


def _images() -> Iterator[Hostile]:
    """Cut short, flipped bits, and magic numbers without an image."""
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        data = _encoded(kind)
        for eighth in range(8):
            # What is missing may be a mere trailer.
            cut = data[: len(data) * eighth // 8]
            yield _image(f"{kind} cut to {eighth}/8", cut, 422, *([200] if eighth > 6 else []))
        for number in range(6):
            flipped = bytearray(data)
            for place in rng.integers(0, len(data), 8):
                flipped[place] ^= int(rng.integers(1, 256))
            yield _image(f"{kind} flipped {number}", bytes(flipped), 200, 413, 422)
        yield _image(f"{kind} magic and zeros", data[:12] + bytes(5000), 413, 422)
        yield _image(f"{kind} twice", data[: len(data) // 2] + data, 200, 422)
    for text in (b"", b"\x00", b"GIF89a", b"<svg onload=alert(1)>", b"%PDF-1.7", b"PK\x03\x04"):
        yield _image(f"starts {text[:8]!r}", text, 422)
    yield _image("a URL", b"http://127.0.0.1:1/face.jpg", 422)
    yield _image("a path", b"/etc/passwd", 422)
    yield _image(
        "a script for Ghostscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422
    )


def _png(width: int, height: int, rows: bytes, depth: int = 8, color: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def _bombs() -> Iterator[Hostile]:
    """Small files that say they are large, and some that are."""
    for side in (5_001, 9_000, 20_000, 2**31 - 1):
        yield _image(f"PNG of {side} squared", _png(side, side, bytes(1000)), 413, 422)
        yield _image(f"PPM of {side} squared", b"P5 %d %d 255\n" % (side, side), 413, 422)
    yield _image("PNG 10,000 x 9,999, real", _png(10_000, 9_999, bytes(10_001 * 9_999)), 413)
    yield _image("PNG with a long tail", _png(48, 48, bytes(50_000_000)), 200, 422)
    solid = io.BytesIO()
    Image.new("L", (16_000, 8_000)).save(solid, "JPEG")
    yield _image("JPEG of 128 megapixels", solid.getvalue(), 413)
    webp = io.BytesIO()
    Image.new("RGB", (6_000, 6_000)).save(webp, "WEBP", lossless=True)
    yield _image("WebP of 36 megapixels", webp.getvalue(), 413)
    frames = io.BytesIO()
    Image.new("P", (9, 9)).save(
        frames, "GIF", save_all=True, append_images=[Image.new("P", (9, 9), n) for n in range(300)]
    )
    yield _image("GIF of 300 frames", frames.getvalue(), 200)
    zipped = zlib.compress(bytes(20_000_000), 9)
    yield _image("a plain deflate bomb", zipped, 422)


def _json(name: str, body: bytes, *statuses: int, path: str = "/v1/predict") -> Hostile:
    return Hostile(name, path, "application/json", body, statuses)


def _documents() -> Iterator[Hostile]:
    """JSON that is deep, long, wrong or no JSON."""
    for depth in (10, 1_000, 100_000, 1_000_000):
        for left, right in ((b"[", b"]"), (b'{"a":', b"}")):
            yield _json(f"{left!r} {depth} deep", left * depth, 400)
            yield _json(f"{left!r} {depth} deep, closed", left * depth + b"1" + right * depth, 400)
            inside = b'{"inputs":' + left * depth + b"1" + right * depth + b"}"
            yield _json(f"{left!r} {depth} deep in inputs", inside, 400)
    wrong: list[object] = [
        None, 1, "text", [], {}, {"inputs": None}, {"inputs": 1}, {"inputs": {}}, {"inputs": []},
        {"inputs": ["aGk="]}, {"inputs": True}, {"inputs": "aGk=", "url": "http://127.0.0.1"},
        {"image": "aGk="}, {"inputs": "aGk=", "parameters": []}, {"Inputs": "aGk="},
    ]  # fmt: skip
    for document in wrong:
        for path in ("/v1/predict", "/"):
            text = json.dumps(document).encode()
            yield _json(f"{path} {text!r}", text, 400, 422, path=path)
    for top_k in (0, -1, 1e300, "9" * 5000, 2.5, True, [], {}, "x"):
        body = json.dumps({"inputs": "aGk=", "parameters": {"top_k": top_k}}).encode()
        yield _json(f"top_k {str(top_k)[:9]}", body, 422)
    for text in (
        b"", b"{", b"\xff\xfe{\x00}\x00", b"\x00" * 1000, b"NaN", b'{"inputs": NaN}',
        b'{"inputs": "\\ud800"}', b'{"inputs": "' + b"\\u0000" * 1000 + b'"}',
        b'{"inputs": 1' + b"0" * 100_000 + b"}", b"\xef\xbb\xbf{}", b"// comment\n{}",
        b'{"inputs": "aGk="} trailing',
    ):  # fmt: skip
        yield _json(f"text {text[:20]!r}", text, 400, 422)
    keys = b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b"}"
    yield _json("50,000 keys", keys, 400)
    yield _json("a long batch", json.dumps({"inputs": [""] * 100_000}).encode(), 413,
                path="/v1/predict/batch")  # fmt: skip


def _base64() -> Iterator[Hostile]:
    for text in (
        "%", "a", "aGk", "aGk=\n", " aGk=", "aGk= ", "aG k=", "====", "=", "aGk=aGk=", "-_-_",
        "data:image/png;base64,aGk=", "http://127.0.0.1:1/", "file:///etc/passwd", "\u00e9", "\x00",
        "😀", "aGk=" * 1000,
    ):  # fmt: skip
        body = json.dumps({"inputs": text}).encode()
        yield _json(f"base64 {text[:12]!r}", body, 422)
    bomb = base64.b64encode(_png(9_000, 9_000, bytes(9_001 * 9_000))).decode()
    yield _json("a bomb in base64", json.dumps({"inputs": bomb}).encode(), 413)


def _forms() -> Iterator[Hostile]:
    """Forms cut at every place, and headers that make no sense."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
    whole = head + b"Content-Type: image/png\r\n\r\n" + faces(1)[0] + b"\r\n--b--\r\n"
    for place in (
        1,
        2,
        3,
        5,
        10,
        40,
        len(head),
        len(head) + 10,
        len(head) + 27,
        500,
        len(whole) - 9,
    ):
        yield Hostile(f"form cut at {place}", "/v1/predict", FORM, whole[:place], (400,))
    for name, body in {
        "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        "no header": b"--b\r\n\r\nx\r\n--b--\r\n",
        "header without colon": b"--b\r\nnonsense\r\n\r\nx\r\n--b--\r\n",
        "header of 100 kB": b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n",
        "1,000 headers": b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--b--\r\n",
        "another boundary": whole.replace(b"--b", b"--c"),
        "ends before it begins": b"--b--\r\n",
        "a path for a name": whole.replace(b'"x"', b'"../../etc/passwd"').replace(
            b'"file"', b'"f"'
        ),
        "text": b"hello",
        "null bytes": bytes(1000),
    }.items():
        yield Hostile(f"form: {name}", "/v1/predict", FORM, body, (400,))
    many = head + b"\r\nx\r\n"
    yield Hostile("1,000 parts", "/v1/predict", FORM, many * 1000 + b"--b--\r\n", (413,))
    for media_type in ("multipart/form-data", "multipart/form-data; boundary=",
                       "multipart/form-data; boundary=" + "x" * 5000):  # fmt: skip
        yield Hostile(f"{media_type[:40]}", "/v1/predict", media_type, whole, (400,))


def _types() -> Iterator[Hostile]:
    for media_type in ("text/html", "application/x-python-pickle", "multipart/mixed; boundary=b",
                       "application/jsonx", "*/*", ";", "x" * 3000, "image"):  # fmt: skip
        for path in ("/v1/predict", "/v1/predict/batch", "/"):
            yield Hostile(f"{path} {media_type[:20]}", path, media_type, b"x", (415,))


def _tensors() -> Iterator[Hostile]:
    path = "/v2/models/tiny/infer"
    good = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aGk="]}
    for changes in ({"shape": []}, {"shape": [10**30]}, {"shape": [0]}, {"shape": ["1"]},
                    {"data": []}, {"data": [[["aGk="]]]}, {"data": [None]}, {"datatype": "FP32"},
                    {"shape": [1, 1, 1]}, {"data": "aGk="}, {}):  # fmt: skip
        body = json.dumps({"inputs": [{**good, **changes}]}).encode()
        yield _json(f"tensor {changes}", body, 400, 422, path=path)
    long = {**good, "shape": [100_000], "data": ["aGk="] * 100_000}
    yield _json("a long tensor", json.dumps({"inputs": [long]}).encode(), 413, path=path)
    yield _json("two tensors", json.dumps({"inputs": [good, good]}).encode(), 400, path=path)
