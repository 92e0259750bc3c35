"""API keys: a file of names and salted hashes, read again whenever it changes.

One line a key, `NAME:sha256:SALT:DIGEST` in hexadecimal; `#` starts a comment. The keys are 256
random bits, so one round of SHA-256 is enough: there is nothing to guess from a dictionary.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fer_ray.errors import UserError
from fer_ray.store import write_atomic

PREFIX = "fer_"
"""Of every key, so that scanners for leaked secrets can find one."""

CHECK_EVERY_S = 1.0
"""How long an edited file may go unnoticed."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):sha256:([0-9a-f]{32}):([0-9a-f]{64})")

log = logging.getLogger("ray.serve.fer_ray")


@dataclass(frozen=True)
class KeyHash:
    """One line of the file.

    Attributes:
        name: whose it is; may stand in logs.
        salt: 16 random bytes.
        digest: sha256 of salt and key.
    """

    name: str
    salt: bytes
    digest: bytes

    def matches(self, key: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(_digest(self.salt, key), self.digest)


def _digest(salt: bytes, key: str) -> bytes:
    return hashlib.sha256(salt + key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: Path) -> tuple[KeyHash, ...]:
    """Read a file of key hashes.

    Raises:
        UserError: it is not there, or a line is wrong.
    """
    remedy = f"Make a key with: fer-ray serve-key NAME --api-keys {path}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the API keys {path} cannot be read: {error}", remedy) from error
    keys: dict[str, KeyHash] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None or found[1] in keys:
            # Without the line itself: it may be a key that was pasted by mistake.
            fault = "names a key twice" if found else "is not NAME:sha256:SALT:DIGEST"
            raise UserError(f"{path}:{number} {fault}", remedy)
        keys[found[1]] = KeyHash(found[1], bytes.fromhex(found[2]), bytes.fromhex(found[3]))
    return tuple(keys.values())


def add_key(path: Path, name: str) -> str:
    """Make a key and append its hash to the file, which only its owner can read.

    Returns:
        the key; it is kept nowhere.

    Raises:
        UserError: the name is taken or has odd characters, or the file is wrong.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"a key's name is 1 to 64 of A-Z a-z 0-9 . _ -, but got {name!r}")
    before = ""
    if path.exists():
        if any(key.name == name for key in read_keys(path)):
            raise UserError(
                f"{path} has a key named {name!r} already",
                "Choose another name, or delete its line first.",
            )
        before = path.read_text(encoding="utf-8")
        if not before.endswith("\n"):
            before += "\n"
    key, salt = PREFIX + secrets.token_urlsafe(32), secrets.token_bytes(16)
    line = f"{name}:sha256:{salt.hex()}:{_digest(salt, key).hex()}\n"
    write_atomic(path, (before + line).encode())
    path.chmod(0o600)
    return key


class KeyBook:
    """The keys that are valid now.

    A file that an edit broke leaves the former keys in force, and the log says so; a file without
    any key lets nobody in.

    Args:
        path: read at once.
        clock: monotonic seconds.

    Raises:
        UserError: the file is wrong from the start, or has no key.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stamp = self._stamp_of_file()
        self._keys = read_keys(path)
        self._checked_s = clock()
        if not self._keys:
            raise UserError(
                f"{path} has no key", f"Make one with: fer-ray serve-key NAME --api-keys {path}"
            )

    def name_of(self, key: str) -> str | None:
        """Whose key it is; None when it is nobody's. Every line is compared, match or not."""
        self._reload()
        names = [entry.name for entry in self._keys if entry.matches(key)]
        return names[0] if names else None

    def _reload(self) -> None:
        now = self._clock()
        if now - self._checked_s < CHECK_EVERY_S:
            return
        self._checked_s = now
        stamp = self._stamp_of_file()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
            log.warning("API keys read again: %d", len(self._keys))
        except UserError as error:
            log.error("the former API keys stay in force: %s", error.message)

    def _stamp_of_file(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns
