"""Object storage as a source: prefixes walked in the order of their keys, listed ahead in parallel.

A prefix is walked level by level, so that memory holds the names of one level. A level with tens of
millions of names is better read from an inventory.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.fs

from fer_ray.data.sources.remote import shown
from fer_ray.errors import UserError
from fer_ray.score.folders import is_image_name
from fer_ray.score.items import Item, key_of
from fer_ray.score.storage import filesystem_of
from fer_ray.score.transient import Patience, patiently

LISTED_AHEAD = 16
"""Prefixes being listed at once."""


class ObjectSource:
    """All images below a prefix, or one object.

    Args:
        uri: `s3://bucket/prefix` or `gs://...`, with the options that pyarrow knows.
        patience: with throttled and failing listings.

    Raises:
        UserError: nothing is there, or the scheme is unknown.
    """

    rescans = False

    def __init__(self, uri: str, patience: Patience) -> None:
        self.uri, self.patience = uri, patience
        self.skipped: Counter[str] = Counter()
        self._scheme = uri.partition("://")[0]
        self._files, self._root = filesystem_of(uri)

    def items(self, after: bytes) -> Iterator[Item]:
        found = self._patiently(lambda: self._files.get_file_info(self._root))
        if found.type == pa.fs.FileType.NotFound:
            raise UserError(f"{shown(self.uri)} does not exist")
        if found.type == pa.fs.FileType.File:
            item = self._item(found)
            yield from [item] if item.key > after else []
            return
        with ThreadPoolExecutor(LISTED_AHEAD) as pool:
            yield from self._walk(pool, self._list(self._root), after)

    def _walk(self, pool: ThreadPoolExecutor, children: list[Any], after: bytes) -> Iterator[Item]:
        """One level: objects in their places, the prefixes among them listed ahead."""
        wanted = [child for child in children if self._reaches_beyond(child, after)]
        prefixes = iter([child for child in wanted if _is_prefix(child)])
        ahead: deque[Future[list[Any]]] = deque()

        def fill() -> None:
            while len(ahead) < LISTED_AHEAD and (prefix := next(prefixes, None)) is not None:
                ahead.append(pool.submit(self._list, prefix.path))

        fill()
        for child in wanted:
            if _is_prefix(child):
                listed = ahead.popleft().result()
                fill()
                yield from self._walk(pool, listed, after)
            elif child.base_name.startswith("."):
                self.skipped["hidden"] += 1
            elif is_image_name(key_of(child.base_name)):
                yield self._item(child)
            else:
                self.skipped["other_name"] += 1

    def _reaches_beyond(self, child: Any, after: bytes) -> bool:
        key = key_of(self._uri_of(child.path))
        if _is_prefix(child):
            inside = key + b"/"
            return not child.base_name.startswith(".") and (
                inside > after or after.startswith(inside)
            )
        return key > after

    def _list(self, prefix: str) -> list[Any]:
        selector = pa.fs.FileSelector(prefix, recursive=False)
        children = self._patiently(lambda: self._files.get_file_info(selector))
        # The order of whole keys: a prefix stands where its slash puts it.
        return sorted(children, key=lambda c: key_of(c.path + ("/" if _is_prefix(c) else "")))

    def _item(self, found: Any) -> Item:
        return Item(self._uri_of(found.path), found.size, str(found.mtime_ns))

    def _uri_of(self, path: str) -> str:
        return f"{self._scheme}://{path}"

    def _patiently(self, action: Any) -> Any:
        return patiently(action, self.patience, f"listing {shown(self.uri)}")


def _is_prefix(found: Any) -> bool:
    return bool(found.type == pa.fs.FileType.Directory)
