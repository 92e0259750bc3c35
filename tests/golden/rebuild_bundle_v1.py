"""Rebuild tests/golden/bundle-v1: python -m tests.golden.rebuild_bundle_v1 OUT

The kept one is never replaced: it shows that bundles of format 1 load for ever. This script says
how it came to be, and makes the like of it. Weights are random numbers from a seed.
"""

import sys
from pathlib import Path

from tests.bundles import tiny_bundle

CHANGES = {
    "name": "golden-v1",
    "data.equalize": "histogram",
    "model.cnn": {
        "channels": [4, 8],
        "convs_per_block": 2,
        "batchnorm": [1],
        "residual": True,
        "stem_stride": 2,
        "pool": "flatten",
        "head": [6],
        "head_batchnorm": True,
    },
}


def build(out: Path) -> Path:
    return tiny_bundle(out, seed=1, changes=CHANGES, gain=2.0)


def main() -> None:
    place = build(Path(sys.argv[1]))
    size = sum(path.stat().st_size for path in place.iterdir())
    print(f"{place}: {size:,} bytes")


if __name__ == "__main__":
    main()
