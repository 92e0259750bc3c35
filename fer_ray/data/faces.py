"""The built-in synthetic sample faces: seven expressions drawn from facial action units.

    labels -> action units -> looks, pose -> drawing (face_geometry.py) -> light, blur, noise

An expression is not a template but a set of muscle movements, the action units (AU) of FACS
(Ekman, Friesen and Hager, "Facial Action Coding System", 2002). Each face takes the intensities
its expression prescribes, more or less strongly, with some of every other unit mixed in; who the
face is, how it is held and how it is lit are drawn independently of the expression.

Measured on 1,000 faces of another seed after training on 3,000 (2,400 for the regression), n = 3
seeds: nearest neighbour on pixels 21-25 % right, logistic regression 45-54 %, three 3 x 3
convolutions (16, 32, 64) with global pooling and 12 epochs 90-92 %; 98 % with a 3 x 3 pooled map.
"""

from collections.abc import Mapping

import numpy as np

from fer_ray.data.face_geometry import (
    IMAGE_SIZE_PX,
    Canvas,
    FloatArray,
    draw_brows,
    draw_eyes,
    draw_glasses,
    draw_hand,
    draw_head,
    draw_mouth,
    draw_nose,
)
from fer_ray.labels import EXPRESSIONS

EXPRESSION_UNITS: dict[str, dict[int, float]] = {
    "angry": {4: 1.0, 5: 0.5, 7: 0.7, 10: 0.2, 17: 0.4, 23: 0.9, 24: 0.6},
    "disgust": {4: 0.3, 7: 0.4, 9: 1.0, 10: 0.9, 15: 0.5, 17: 0.5, 25: 0.4},
    "fear": {1: 0.9, 2: 0.5, 4: 0.6, 5: 0.9, 7: 0.2, 20: 1.0, 25: 0.8, 26: 0.3},
    "happy": {6: 0.9, 12: 1.0, 25: 0.8},
    "sad": {1: 1.0, 4: 0.6, 7: 0.2, 15: 1.0, 17: 0.6},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.7, 25: 0.8, 26: 0.8, 27: 0.8},
    "neutral": {},
}
"""Intensity 0..1 of each action unit in the full expression; units not named are 0.

The prototypes are EMFACS's (Friesen and Ekman, "EMFACS-7", 1983; table in Ekman, Friesen and
Hager 2002): anger 4+5+7+23, disgust 9 or 10 with 15 or 17, fear 1+2+4+5+20+26, happiness 6+12,
sadness 1+4+15, surprise 1+2+5+26 or 27. The intensities are ours.
"""

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 24, 25, 26, 27)
"""Brow 1 inner raise, 2 outer raise, 4 lower; lid 5 raise, 7 tighten; 6 cheek raise; 9 nose
wrinkle; 10 upper lip raise; mouth corner 12 up, 15 down; 17 chin raise; lip 20 stretch, 23 tighten,
24 press, 25 part; jaw 26 drop, 27 stretch."""

EXPRESSION_COUNTS = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])
"""FER2013's training images of each class, canonical order: our imbalance is the same."""

EXPRESSION_STRENGTH = (0.65, 1.1)  # a face shows this much of its expression
UNIT_SPREAD = 0.25  # each unit of the expression varies by this fraction, standard deviation
UNIT_NOISE = 0.08  # of a full unit, standard deviation: real faces mix

Ranges = Mapping[str, tuple[float, float]]

POSE: Ranges = {  # shifts are in half pictures (1 = 24 px)
    "shift_x": (-0.11, 0.11),
    "shift_y": (-0.11, 0.11),
    "half_tilt": (-0.1, 0.1),  # tangent of half the angle: 11 degrees
    "zoom": (0.95, 1.2),
    "width": (0.92, 1.1),
    "turn": (-0.14, 0.14),  # how far the middle of the face moves against its outline
    "nod": (-0.1, 0.1),
}

LOOKS: Ranges = {  # lengths in face units, greys 0..1
    "background": (0.05, 0.95),
    "background_x": (-0.3, 0.3),
    "background_y": (-0.3, 0.3),
    "stripe_x": (-1.2, 1.2),
    "stripe_width": (-0.2, 0.3),
    "skin": (0.4, 0.85),
    "head": (0.7, 0.86),
    "jaw": (0.05, 0.3),
    "hair_grey": (0.08, 0.75),  # of the skin's
    "hair_length": (0.0, 1.0),
    "hairline": (-0.95, -0.68),
    "parting": (-0.25, 0.25),
    "eye_x": (0.33, 0.42),
    "eye_half_x": (0.15, 0.2),
    "eye_open": (0.075, 0.105),
    "iris": (0.02, 0.3),
    "gaze_x": (-0.06, 0.06),
    "socket_dark": (0.0, 0.3),
    "brow_y": (-0.05, 0.05),
    "brow_arch": (0.0, 0.06),
    "brow_width": (0.025, 0.06),
    "brow_dark": (0.45, 0.85),
    "lopsided": (-0.03, 0.03),
    "ridge_x": (-0.03, 0.03),
    "nose_dark": (0.05, 0.2),
    "nose_half_x": (0.12, 0.19),
    "fold_dark": (0.0, 0.2),
    "mouth_y": (-0.05, 0.05),
    "mouth_half_x": (0.26, 0.36),
    "smirk": (-0.02, 0.02),
    "lip": (0.04, 0.1),
    "lip_dark": (0.1, 0.45),
    "teeth": (0.3, 1.0),
    "hand_x": (-0.7, 0.7),
    "hand_y": (-0.6, 0.9),
    "hand_slope": (-1.0, 1.0),
    "hand_grey": (0.2, 0.9),
}

LIGHT: Ranges = {
    "slope_x": (-0.35, 0.35),  # relative change of light from the middle to the edge
    "slope_y": (-0.25, 0.25),
    "contrast": (0.75, 1.25),
    "brightness": (-0.12, 0.12),
    "blur": (0.0, 0.9),  # share of a 3 x 3 binomial blur
    "noise": (0.0, 0.035),  # standard deviation
}

PRESENT_CHANCES = {"hair": 0.88, "glasses": 0.15, "beard": 0.15, "hand": 0.1}

# Faces are drawn in blocks, each with its own random stream: face i does not depend on how many
# are asked for, and a block's arrays (0.5 MB) stay in the processor's cache.
BLOCK_FACES = 50


def draw_faces(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws labelled sample faces, the same for the same seed.

    Face i is the same whatever `count` is. Every block of 50 faces, shuffled, carries on FER2013's
    class proportions as closely as whole faces can: from 50 faces on every class occurs.

    Args:
        count: number of faces, N >= 0.
        seed: a non-negative integer.

    Returns:
        images: uint8 [N, 48, 48], 0-255; labels: int64 [N], class index in canonical order.
    """
    if count < 0:
        raise ValueError(f"`count >= 0` must hold, but got count={count}")
    num_blocks = -(-count // BLOCK_FACES)
    quotas = class_quotas(num_blocks * BLOCK_FACES).reshape(num_blocks, BLOCK_FACES)
    images = np.empty((num_blocks, BLOCK_FACES, IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.uint8)
    labels = np.empty((num_blocks, BLOCK_FACES), dtype=np.int64)
    for block in range(num_blocks):
        rng = np.random.default_rng([seed, block])
        labels[block] = rng.permutation(quotas[block])
        images[block] = draw_block(labels[block], rng)
    return images.reshape(-1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)[:count], labels.reshape(-1)[:count]


def class_quotas(count: int) -> np.ndarray:
    """Class indices [count] whose every prefix follows `EXPRESSION_COUNTS` (Webster's method).

    The k-th face of a class with share p is due at place (k - 1/2) / p.
    """
    shares = EXPRESSION_COUNTS / EXPRESSION_COUNTS.sum()
    due = (np.arange(count)[:, None] + 0.5) / shares
    return np.argsort(due, axis=None, kind="stable")[:count] % len(EXPRESSIONS)


def draw_block(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images uint8 [N, 48, 48] of faces with these class indices [N]."""
    num_faces = len(labels)
    units = sample_action_units(labels, rng)
    looks = sample_ranges(LOOKS, num_faces, rng)
    for name, chance in PRESENT_CHANCES.items():
        looks[name] = (rng.random((num_faces, 1, 1)) < chance).astype(np.float32)
    canvas = Canvas(sample_ranges(POSE, num_faces, rng))
    draw_head(canvas, looks, units)
    draw_nose(canvas, looks, units)
    draw_mouth(canvas, looks, units)
    draw_eyes(canvas, looks, units)
    draw_brows(canvas, looks, units)
    draw_glasses(canvas, looks)
    draw_hand(canvas, looks)
    photographed = photograph(canvas.picture, sample_ranges(LIGHT, num_faces, rng), rng)
    return np.rint(photographed * 255).astype(np.uint8)


def sample_ranges(ranges: Ranges, count: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Uniform values [count, 1, 1], independent, by name."""
    return {
        name: rng.uniform(low, high, (count, 1, 1)).astype(np.float32)
        for name, (low, high) in ranges.items()
    }


def sample_action_units(labels: np.ndarray, rng: np.random.Generator) -> dict[int, FloatArray]:
    """Intensities 0..1.2 [N, 1, 1] of every action unit, by FACS number."""
    table = np.array(
        [[EXPRESSION_UNITS[name].get(unit, 0.0) for unit in ACTION_UNITS] for name in EXPRESSIONS]
    )
    shape = (len(labels), len(ACTION_UNITS))
    strength = rng.uniform(*EXPRESSION_STRENGTH, (len(labels), 1))
    spread = 1 + UNIT_SPREAD * rng.standard_normal(shape)
    mixed_in = np.abs(UNIT_NOISE * rng.standard_normal(shape))
    intensities = np.clip(table[labels] * strength * spread + mixed_in, 0, 1.2).astype(np.float32)
    return {unit: intensities[:, i, None, None] for i, unit in enumerate(ACTION_UNITS)}


def photograph(
    picture: FloatArray, light: Mapping[str, FloatArray], rng: np.random.Generator
) -> FloatArray:
    """The drawn faces [N, 48, 48] under sloping light, blurred and with sensor noise, 0..1."""
    ruler = np.linspace(-1, 1, IMAGE_SIZE_PX, dtype=np.float32)
    slope = 1 + light["slope_x"] * ruler[None, None, :] + light["slope_y"] * ruler[None, :, None]
    lit = (picture * slope - 0.5) * light["contrast"] + 0.5 + light["brightness"]
    lit += light["blur"] * (binomial_blur(lit) - lit)
    lit += light["noise"] * rng.standard_normal(lit.shape, dtype=np.float32)
    return np.clip(lit, 0, 1)


def binomial_blur(images: FloatArray) -> FloatArray:
    """Images [N, H, W] under the 3 x 3 kernel (1, 2, 1) x (1, 2, 1) / 16, edges repeated."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
