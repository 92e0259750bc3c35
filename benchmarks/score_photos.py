"""12-megapixel JPEG photos: decoding at a reduced size beside full decoding, and their labels.

    python benchmarks/score_photos.py [--photos 100] [--repeats 5]

Drawn faces are enlarged, put in the centre of 4000 x 3000 grained pixels, saved as JPEG. `reduced`
is `fer_ray.images.decode.decode`; `full` opens the same bytes with Pillow, turns them grey and
resizes the same centre. The shipped bundle answers both. The last line on stdout is one JSON
document.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from fer_ray import api
from fer_ray.data.faces import draw_faces
from fer_ray.images.decode import centre_square, decode, grey_of

WIDTH, HEIGHT = 4000, 3000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    photos = [photo(pixels) for pixels in draw_faces(arguments.photos, 11)[0]]
    predictor = api.load_predictor(precision="fp32", num_threads=1)
    ways: dict[str, Callable[[bytes], np.ndarray]] = {
        "reduced": lambda data: decode(data, 48).pixels,
        "full": full,
    }
    labels, rates = {}, {}
    for name, way in ways.items():
        pixels = np.stack([way(data) for data in photos])
        labels[name] = predictor.predict(pixels).label_indices
    for name, way in ways.items():
        seconds = [timed(way, photos[:10]) for _ in range(arguments.repeats)]
        rates[name] = 10 / statistics.median(seconds)
        print(f"{name:<8} {rates[name]:.1f} photos/s")
    same = float((labels["reduced"] == labels["full"]).mean())
    ratio = rates["reduced"] / rates["full"]
    print(f"{ratio:.1f} times as fast, the same label on {100 * same:.1f} %")
    document = {"photos_per_s": rates, "ratio": ratio, "same_label": same}
    print(json.dumps({**document, "photos": arguments.photos, "n": arguments.repeats}))


def photo(pixels: np.ndarray) -> bytes:
    face = Image.fromarray(pixels).resize((HEIGHT, HEIGHT), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (WIDTH, HEIGHT), (120, 110, 100))
    canvas.paste(face.convert("RGB"), ((WIDTH - HEIGHT) // 2, 0))
    noise = np.random.default_rng(0).integers(-6, 7, (HEIGHT, WIDTH, 1))
    grained = np.clip(np.asarray(canvas, np.int16) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grained).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def full(data: bytes) -> np.ndarray:
    return centre_square(grey_of(Image.open(io.BytesIO(data)).convert("RGB")), 48)


def timed(way: Callable[[bytes], np.ndarray], photos: list[bytes]) -> float:
    started = time.perf_counter()
    for data in photos:
        way(data)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
