"""Photos for whatever finds faces: grey, with drawn faces that a real detector finds."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from fer_ray.data.faces import draw_faces


def photo(
    *places: tuple[int, int], side: int = 160, size: tuple[int, int] = (640, 320)
) -> Image.Image:
    """A grey photo with a drawn face at each place (left, top)."""
    canvas = Image.new("L", size, 128)
    for number, place in enumerate(places):
        drawn = Image.fromarray(draw_faces(4, 5)[0][number])
        canvas.paste(drawn.resize((side, side), Image.Resampling.BICUBIC), place)
    return canvas


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
