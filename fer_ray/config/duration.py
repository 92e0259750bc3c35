"""Lengths of time as people write them."""

from __future__ import annotations

import re

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str) -> float:
    """Read `90s`, `40m`, `4h` or `1h30m`.

    Returns:
        seconds, above 0.

    Raises:
        ValueError: another form.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ValueError(f"a duration such as 90s, 40m, 4h or 1h30m is wanted, but got {text!r}")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if seconds <= 0:
        raise ValueError(f"a duration above 0 is wanted, but got {text!r}")
    return seconds
