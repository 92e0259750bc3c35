"""Text of unknown origin inside Markdown and YAML: it stays text.

Class names, the names of data sets and of the YAML file are the user's, or an attacker's.
"""

from __future__ import annotations

import html
import json
import re

MAX_CHARS = 120
_SPECIAL = re.compile(r"([\\`*_\[\]|~$#!:@])")


def plain(text: str) -> str:
    """One short line: what cannot be printed becomes a space, what is too long is cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 3] + "..."


def escaped(text: str) -> str:
    """For Markdown, between other words: neither HTML nor links, emphasis or table cells."""
    return _SPECIAL.sub(r"\\\1", html.escape(plain(text), quote=False))


def quoted(text: str) -> str:
    """For YAML: a double-quoted scalar."""
    return json.dumps(plain(text), ensure_ascii=False)
