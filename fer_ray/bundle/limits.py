"""What a bundle may ask of the machine that reads it. `docs/bundle.md` lists these numbers.

A bundle may come from anybody. Each number is above what a training here can make and far below
what hurts; each is checked before memory of that size is asked for.
"""

from __future__ import annotations

from fer_ray.data.sources.naming import MAX_CLASSES as MAX_CLASSES

KIB, MIB = 1024, 1024**2

MAX_WEIGHTS_BYTES = 1024 * MIB
"""Of one network, and of all members of an ensemble together."""

MAX_FILE_BYTES = {
    "bundle.json": 64 * KIB,
    "model.safetensors": MAX_WEIGHTS_BYTES,
    "config.json": 256 * KIB,
    "preprocessor_config.json": 64 * KIB,
    "calibration.json": 64 * KIB,
    "metrics.json": 4 * MIB,
    "lineage.json": 8 * MIB,
    "golden.safetensors": 8 * MIB,
    "README.md": 1 * MIB,
    "LICENSE-weights": 1 * MIB,
}

MAX_JSON_DEPTH = 32
MAX_JSON_VALUES = 500_000
"""Values in one document: Python needs some twenty times the bytes of the text for them."""
MAX_NUMBER_CHARS = 40

MAX_HEADER_BYTES = 1 * MIB
"""Of a safetensors file; a ResNet-50's has 33,000."""
MAX_TENSORS = 4096

MAX_NAME_CHARS = 80
"""Of a label or of the bundle's name."""
MAX_SIDE_PX = 256
MAX_HEAD_LAYERS = 16
MAX_ACTIVATIONS = 2**24
"""Numbers in the largest layer's output for one image: 64 MiB in fp32."""
MAX_MACS = 200_000_000_000
"""Multiply-adds an image: a few seconds on one core. ResNet-50 at 224 pixels has 4e9."""

MAX_GOLDEN_IMAGES = 64
MAX_MEMBERS = 16
"""Of an ensemble; at least two."""
