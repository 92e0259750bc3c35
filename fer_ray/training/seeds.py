"""Where the randomness of a training comes from: (seed, epoch, use, rank) and nothing else."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, epoch: int, what: str, rank: int = 0) -> int:
    """An independent 63-bit seed for each use in each epoch on each rank."""
    text = f"{seed}/{epoch}/{what}" + (f"/{rank}" if rank else "")
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
