"""The curves of a training as one PNG, for mail and slides."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fer_ray.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Panel

_SCALE = 4
"""Pixels a unit while drawing; halved at the end, which smooths the lines."""
_INK, _QUIET, _GRID, _WHITE = "#1c2230", "#5d6678", "#e4e7ed", "#ffffff"
_COLORS = {"training": "#3b6fd4", "validation": "#c2410c"}


def curves_png(panels: Sequence[Panel], title: str) -> bytes:
    """Panels side by side under a title, black on white, as the bytes of a PNG.

    Args:
        panels: at least one.
        title: one line; what does not fit is cut.
    """
    head = 34.0
    size = (round(WIDTH * len(panels) * _SCALE), round((HEIGHT + head) * _SCALE))
    image = Image.new("RGB", size, _WHITE)
    pen = _Pen(ImageDraw.Draw(image), 0.0, 0.0)
    pen.text(LEFT, 20, _cut(title, pen, WIDTH * len(panels) - 2 * LEFT), 15, _INK, "ls")
    for number, panel in enumerate(panels):
        _draw(_Pen(pen.draw, number * WIDTH, head), panel)
    image = image.resize((size[0] // 2, size[1] // 2), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


class _Pen:
    """Draws in a panel's units, from its top left corner."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: float, top: float) -> None:
        self.draw, self._left, self._top = draw, left, top

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (self._left + x) * _SCALE, (self._top + y) * _SCALE

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        self.draw.line(
            [self.at(x, y) for x, y in points], color, round(width * _SCALE), joint="curve"
        )

    def dot(self, x: float, y: float, radius: float, fill: str, edge: str | None = None) -> None:
        self.draw.circle(self.at(x, y), radius * _SCALE, fill, edge, round(1.5 * _SCALE))

    def text(self, x: float, y: float, text: str, size: float, color: str, anchor: str) -> None:
        self.draw.text(self.at(x, y), text, color, _font(size), anchor)

    def width(self, text: str, size: float) -> float:
        return float(self.draw.textlength(text, _font(size))) / _SCALE


@functools.cache
def _font(size: float) -> Any:
    """Pillow's own font; made from its embedded file, which takes a while."""
    return ImageFont.load_default(size * _SCALE)


def _draw(pen: _Pen, panel: Panel) -> None:
    pen.text(LEFT, 18, panel.title, 13, _INK, "ls")
    _draw_legend(pen, panel)
    for tick in panel.y_ticks:
        pen.line([(LEFT, tick.at), (RIGHT, tick.at)], _GRID, 1)
        pen.text(LEFT - 7, tick.at, tick.text, 11, _QUIET, "rm")
    for tick in panel.x_ticks:
        pen.line([(tick.at, BOTTOM), (tick.at, BOTTOM + 4)], _QUIET, 1)
        pen.text(tick.at, BOTTOM + 8, tick.text, 11, _QUIET, "ma")
    pen.line([(LEFT, BOTTOM), (RIGHT, BOTTOM)], _QUIET, 1)
    pen.text((LEFT + RIGHT) / 2, BOTTOM + 24, "epoch", 11, _QUIET, "ma")
    if panel.best is not None:
        x = panel.best[0]
        for start in range(round(TOP), round(BOTTOM), 6):
            pen.line([(x, start), (x, min(start + 3, BOTTOM))], _QUIET, 1)
    for curve in panel.curves:
        color = _COLORS[curve.name]
        pen.line(curve.points, color, 2)
        if panel.has_dots:
            for x, y in curve.points:
                pen.dot(x, y, 2.2, color)
    if panel.best is not None:
        x, y = panel.best
        pen.dot(x, y, 4.5, _WHITE, _COLORS["validation"])
        shift, anchor = (-6, "rs") if panel.best_ends else (6, "ls")
        pen.text(x + shift, TOP - 4, panel.best_text, 11, _INK, anchor)


def _draw_legend(pen: _Pen, panel: Panel) -> None:
    """Right of the title."""
    right = RIGHT
    for curve in reversed(panel.curves):
        pen.text(right, 18, curve.name, 11, _INK, "rs")
        right -= pen.width(curve.name, 11) + 6
        pen.line([(right - 16, 14), (right, 14)], _COLORS[curve.name], 2.5)
        right -= 16 + 14


def _cut(text: str, pen: _Pen, width: float) -> str:
    while text and pen.width(text, 15) > width:
        text = text[:-1]
    return text
