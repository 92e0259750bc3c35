"""How one face is drawn: pose, head, brows, eyes, nose, mouth, on a batch of pictures at once.

Every pixel asks "where on the face am I?" (`Canvas`), and every feature answers with a coverage
0..1 that is painted or darkened in. Per-pixel work is plain arithmetic on float32 (no exp, sin or
BLAS), so pictures come out the same wherever IEEE arithmetic does.

Face units: the origin lies between eyes and nose, +x to the right, +y down, the chin near y = 1;
one unit is about 26 px. Greys are 0 (black) to 1 (white). Per-face values have shape [N, 1, 1],
pictures [N, 48, 48].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE_PX = 48

FloatArray = NDArray[np.floating[Any]]  # float32; mypy takes float32 * float for float64
Amount = FloatArray | float
Values = Mapping[str, FloatArray]  # one value a face, by name: the tables in faces.py
ActionUnits = Mapping[int, FloatArray]  # intensity 0..1.2 a face, by FACS number

BROW_Y, EYE_Y, NOSE_Y, MOUTH_Y = -0.46, -0.2, 0.2, 0.54


def unit_clip(values: FloatArray) -> FloatArray:
    """Values limited to 0..1."""
    return np.clip(values, 0.0, 1.0)


class Canvas:
    """A batch of grey pictures, and where on its face each pixel lies.

    `head_x`, `head_y` are fixed to the head's outline; `x`, `y` follow its surface, which a turn
    or nod moves most in the middle. `side` is `abs(x)`: what is drawn on it appears on both sides.
    """

    def __init__(self, pose: Values) -> None:
        ruler = (np.arange(IMAGE_SIZE_PX, dtype=np.float32) + 0.5) / (IMAGE_SIZE_PX / 2) - 1
        column, row = ruler[None, None, :], ruler[None, :, None]
        # A rotation by the tangent of half its angle needs no sine: exact on every platform.
        squared = pose["half_tilt"] ** 2
        cos, sin = (1 - squared) / (1 + squared), 2 * pose["half_tilt"] / (1 + squared)
        right, down = column - pose["shift_x"], row - pose["shift_y"]
        self.head_x = (cos * right + sin * down) / pose["zoom"] / pose["width"]
        self.head_y = (cos * down - sin * right) / pose["zoom"]
        self.x = self.head_x - pose["turn"] * (1 - self.head_x**2)
        self.y = self.head_y - pose["nod"] * (1 - self.head_y**2)
        self.side = np.abs(self.x)
        self.pixels_per_unit = pose["zoom"] * (IMAGE_SIZE_PX / 2)
        self.picture = np.zeros_like(self.x)

    def inside(self, depth: FloatArray) -> FloatArray:
        """Coverage 0..1 of pixels `depth` face units inside an edge, smoothed over one pixel."""
        return unit_clip(depth * self.pixels_per_unit + 0.5)

    def between(self, y: FloatArray, top: FloatArray, bottom: FloatArray) -> FloatArray:
        """Coverage of pixels below the curve `top` and above the curve `bottom`."""
        return np.minimum(self.inside(y - top), self.inside(bottom - y))

    def stroke(self, along: FloatArray, across: FloatArray, width: Amount) -> FloatArray:
        """Coverage of a line: `along` is -1..1 between its ends, `across` is off its middle."""
        return self.inside(width - np.abs(across)) * unit_clip(3 * (1 - np.abs(along)))

    def paint(self, coverage: FloatArray, grey: Amount) -> None:
        """Cover what is there with `grey`."""
        self.picture += coverage * (grey - self.picture)

    def darken(self, coverage: FloatArray, strength: Amount) -> None:
        """Multiply what is there by 1 - coverage * strength; a negative strength lightens."""
        self.picture *= 1 - coverage * strength


def ellipse(x: FloatArray, y: FloatArray, half_x: Amount, half_y: Amount) -> FloatArray:
    """1 in the middle of an ellipse, 0 on its edge, negative outside."""
    return 1 - (x / half_x) ** 2 - (y / half_y) ** 2


def draw_head(canvas: Canvas, looks: Values, au: ActionUnits) -> None:
    """Background, hair, neck, beard, and a shaded head whose jaw drops (AU26, AU27)."""
    x, y = canvas.head_x, canvas.head_y
    canvas.picture += looks["background"] + looks["background_x"] * x + looks["background_y"] * y
    canvas.darken(canvas.inside(looks["stripe_width"] - np.abs(x - looks["stripe_x"])), 0.4)
    crown_y = y + 0.25
    hair_y = np.minimum(crown_y, looks["hair_length"] * crown_y)  # stretched downwards only
    hair_depth = ellipse(x, hair_y, looks["head"] + 0.16, 1.15)
    hair_grey = looks["hair_grey"] * looks["skin"]
    canvas.paint(canvas.inside(0.5 * hair_depth) * looks["hair"], hair_grey)
    canvas.paint(canvas.inside(0.4 - np.abs(x)) * canvas.inside(y - 0.6), 0.8 * looks["skin"])

    chin_y = np.maximum(y, 0) / (1.02 + 0.06 * au[26] + 0.12 * au[27] - 0.03 * au[17])
    half_x = looks["head"] * (1 - looks["jaw"] * chin_y**2)
    roundness = ellipse(x, np.where(y > 0, chin_y, y / 1.15), half_x, 1.0)
    head = canvas.inside(0.5 * roundness)
    canvas.paint(head, looks["skin"] * (0.72 + 0.28 * unit_clip(2 * roundness)))
    stubble = unit_clip(5 * (canvas.y - 0.4 + 0.4 * canvas.side**2))
    bare = canvas.inside(0.15 * ellipse(canvas.x, canvas.y - MOUTH_Y, 0.24, 0.08))
    canvas.darken(head * stubble * (1 - bare), 0.45 * looks["beard"])
    fringe = canvas.inside(looks["hairline"] + looks["parting"] * x + 0.25 * x**2 - y)
    canvas.paint(fringe * canvas.inside(0.5 * hair_depth) * looks["hair"], hair_grey)


def draw_brows(canvas: Canvas, looks: Values, au: ActionUnits) -> None:
    """Brows: AU1 lifts their inner ends, AU2 the outer, AU4 lowers and knits; and their creases."""
    side, y = canvas.side, canvas.y
    inner_x = looks["eye_x"] - 0.21 - 0.06 * au[4]
    along = (side - inner_x) / 0.24 - 1  # -1 at the inner end, 1 at the outer
    lopsided = looks["lopsided"] * np.sign(canvas.x)
    inner_y = -0.17 * au[1] + 0.17 * au[4] * (1 - 0.75 * au[1]) + 0.04 * au[9]
    outer_y = -0.16 * au[2] + 0.05 * au[4] + 0.04 * au[1] * au[4]
    arch = looks["brow_arch"] + 0.05 * au[2] - 0.03 * au[4]
    middle = BROW_Y + looks["brow_y"] + lopsided + (inner_y + outer_y) / 2
    line = middle + (outer_y - inner_y) / 2 * along - arch * (1 - along**2)
    canvas.darken(canvas.stroke(along, y - line, looks["brow_width"]), looks["brow_dark"])

    knit = canvas.stroke((y - BROW_Y - 0.04) / 0.16, side - 0.055, 0.02)
    canvas.darken(knit, 0.55 * au[4])
    lift = 0.06 * (au[1] + au[2])
    for crease_y in (-0.72, -0.82):
        crease = canvas.stroke(canvas.x / 0.42, y - crease_y + lift - 0.12 * side**2, 0.016)
        canvas.darken(crease, 0.4 * au[1] * (0.4 + 0.6 * au[2]))


def draw_eyes(canvas: Canvas, looks: Values, au: ActionUnits) -> None:
    """Eyes: AU5 raises the upper lid, AU7 tightens both, AU6 pushes the lower one up."""
    y = canvas.y - EYE_Y
    along = (canvas.side - looks["eye_x"]) / looks["eye_half_x"]
    bow = 1 - along**2
    top = looks["eye_open"] * (1 + 0.75 * au[5] - 0.4 * au[7] - 0.25 * au[6] - 0.2 * au[9])
    bottom = 0.055 * (1 + 0.2 * au[5] - 0.55 * au[7] - 0.6 * au[6] - 0.4 * au[9])
    socket = unit_clip(ellipse(canvas.side - looks["eye_x"], y + 0.05, 0.3, 0.22))
    canvas.darken(socket, looks["socket_dark"])
    upper, lower = -top * bow, bottom * bow
    opening = canvas.between(y, upper, lower) * (bow > 0)
    canvas.paint(opening, 0.35 + 0.6 * looks["skin"])
    gaze = canvas.x - np.sign(canvas.x) * looks["eye_x"] - looks["gaze_x"]
    iris = canvas.inside(0.5 * 0.085 * ellipse(gaze, y + 0.015, 0.085, 0.085))
    canvas.paint(opening * iris, looks["iris"])
    canvas.darken(canvas.stroke(along / 1.1, y - upper, 0.026), 0.7)
    canvas.darken(canvas.stroke(along, y - lower, 0.016), 0.3 + 0.2 * au[7])
    pouch = canvas.stroke(along / 1.2, y - lower - 0.1 - 0.03 * bow, 0.022)
    canvas.darken(pouch, 0.1 + 0.35 * au[6])


def draw_nose(canvas: Canvas, looks: Values, au: ActionUnits) -> None:
    """Nose: AU9 wrinkles its root and lifts its wings; AU10 and AU12 deepen the cheek fold."""
    side, y = canvas.side, canvas.y - NOSE_Y
    lift = 0.06 * au[9] + 0.025 * au[10]
    ridge = canvas.stroke((y + 0.22) / 0.3, canvas.x - looks["ridge_x"], 0.04)
    canvas.darken(ridge, -0.14)
    flank = canvas.stroke((y + 0.2) / 0.25, side - 0.07 - 0.1 * (y + 0.2), 0.03)
    canvas.darken(flank, looks["nose_dark"])
    wing = looks["nose_half_x"] * (1 + 0.12 * au[12] + 0.15 * au[9])
    nostril = ellipse(side - 0.6 * wing, y + lift, 0.45 * wing, 0.04)
    canvas.darken(canvas.inside(0.03 * nostril), 0.6)
    for wrinkle_y in (-0.44, -0.34, -0.24):
        wrinkle = canvas.stroke(side / 0.16, y - wrinkle_y - 0.5 * side, 0.018)
        canvas.darken(wrinkle, 0.7 * au[9])
    fold_y = (y - 0.12) / 0.2
    fold_x = wing + 0.1 + (0.09 + 0.05 * au[12]) * fold_y - 0.05 * au[12] * (fold_y**2 - 1)
    fold = canvas.stroke(fold_y, side - fold_x, 0.026)
    canvas.darken(fold, looks["fold_dark"] + 0.25 * np.maximum(au[10], au[12]))
    cheek = unit_clip(ellipse(side - 0.45, y - 0.02, 0.2, 0.16))
    canvas.darken(cheek, -0.22 * au[6])


def draw_mouth(canvas: Canvas, looks: Values, au: ActionUnits) -> None:
    """Mouth: corners up (AU12) or down (AU15), wide (AU20), thin (AU23, AU24), open (AU25-27)."""
    y = canvas.y - MOUTH_Y - looks["mouth_y"]
    wider = 1 + 0.32 * au[12] + 0.3 * au[20] - 0.08 * au[23] - 0.1 * au[24] - 0.08 * au[26]
    half_x = looks["mouth_half_x"] * (wider - 0.22 * au[27])
    across = canvas.x / half_x
    bow = 1 - across**2
    corner_y = -0.13 * au[12] + 0.13 * au[15] + 0.03 * au[20] + looks["smirk"] * across
    middle_y = 0.02 * au[12] - 0.03 * au[15] - 0.06 * au[17] - 0.04 * au[9]
    upper_y = middle_y - 0.03 * au[25] - 0.07 * au[10] - 0.04 * au[27]
    jaw_drop = 0.13 * au[26] + 0.24 * au[27] * (1 - 0.5 * au[26])
    lower_y = middle_y + (0.05 + 0.08 * au[12]) * au[25] + jaw_drop
    upper = corner_y + (upper_y - corner_y) * bow
    lower = corner_y + (lower_y - corner_y) * bow
    thinner = 1 - 0.55 * au[23] - 0.6 * au[24] - 0.25 * au[12]
    lip = looks["lip"] * thinner * np.maximum(bow, 0)
    within = canvas.inside(half_x * bow)

    lips = canvas.between(y, upper - 0.8 * lip, lower + lip) * within
    canvas.darken(lips, looks["lip_dark"])
    opening = canvas.between(y, upper + 0.01, lower - 0.01) * within
    canvas.paint(opening, 0.18 * looks["skin"])
    teeth_y = upper + 0.07 * bow * (0.4 + np.maximum(np.maximum(au[12], au[20]), au[10]))
    canvas.paint(opening * canvas.inside(teeth_y - y) * looks["teeth"], 0.3 + 0.65 * looks["skin"])
    canvas.darken(canvas.stroke(across / 1.05, y - (upper + lower) / 2, 0.02), 0.5 * (1 - au[25]))
    corner = ellipse(np.abs(canvas.x) - half_x, y - corner_y, 0.06, 0.06)
    canvas.darken(unit_clip(corner), 0.25 + 0.3 * au[12] + 0.3 * au[15])

    chin = canvas.stroke(canvas.x / 0.2, y - lower_y - 0.17 - 0.6 * canvas.x**2, 0.03)
    canvas.darken(chin, 0.12 + 0.45 * au[17])
    shadow = canvas.stroke(across / 0.8, y - lower - lip - 0.05, 0.03)
    canvas.darken(shadow, 0.2)


def draw_glasses(canvas: Canvas, looks: Values) -> None:
    """Two rims and a bridge, on the faces where `glasses` is 1."""
    y = canvas.y - EYE_Y
    ring = ellipse(canvas.side - looks["eye_x"], y - 0.01, 0.27, 0.22)
    bridge = canvas.stroke(canvas.side / 0.2, y, 0.02) * (canvas.side < looks["eye_x"] - 0.27)
    rim = np.maximum(canvas.inside(0.024 - np.abs(0.12 * ring)), bridge)
    canvas.darken(rim, 0.75 * looks["glasses"])


def draw_hand(canvas: Canvas, looks: Values) -> None:
    """A bar of three fingers that comes from below, on the faces where `hand` is 1."""
    below = canvas.y - looks["hand_y"]
    across = canvas.x - looks["hand_x"] - looks["hand_slope"] * below
    palm = canvas.inside(0.2 - np.abs(across)) * canvas.inside(below) * looks["hand"]
    canvas.paint(palm, looks["hand_grey"])
    for gap_x in (-0.07, 0.07):
        canvas.darken(canvas.stroke(below / 0.6, across - gap_x, 0.012) * palm, 0.5)
