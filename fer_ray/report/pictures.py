"""Grey images as PNG inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Grey = npt.NDArray[np.uint8]


def data_uri(image: Grey) -> str:
    """A `data:` address with a PNG of uint8 [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def contact_sheet(images: Sequence[Grey], columns: int) -> Grey:
    """Images uint8 [H, W] of one size, row by row, as one; the last row is filled with white."""
    height, width = images[0].shape
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height, columns * width), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height, left : left + width] = image
    return sheet
