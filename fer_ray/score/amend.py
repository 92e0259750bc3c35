"""Changing finished parts in good order: error rows tried again, rows of changed inputs dropped.

A part is read, made anew under a temporary name, and takes the old one's place; then its entry in
the ledger. Both steps may be repeated, so a kill between them costs nothing but the repetition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_ray.errors import UnfinishedError
from fer_ray.score.classify import Classifier
from fer_ray.score.items import Item, read_items, readable_path
from fer_ray.score.local import Parts
from fer_ray.score.output import Output
from fer_ray.score.planning import known_items
from fer_ray.score.prepare import Prepared, Preparer
from fer_ray.score.rows import path_text

_ITEMS_AT_ONCE = 512


def retry_errors(output: Output, parts: Parts, preparer: Preparer, classifier: Classifier) -> int:
    """Classify again the items whose rows are errors; the others' rows stay as they are.

    Returns:
        error rows that were tried.

    Raises:
        UnfinishedError: a transient fault did not pass.
    """
    tried = 0
    for entry in list(output.entries()):
        if not entry["errors"]:
            continue
        shard = int(entry["shard"])
        table = pq.read_table(output.part(shard))
        failed = pc.equal(table.column("status"), pa.scalar("error"))
        paths = set(table.column("path").filter(failed).to_pylist())
        hashed = preparer.recipe.options.hash_paths
        everything = read_items(output.inputs(shard))
        items = [item for item in everything if path_text(item.path, hashed) in paths]
        again = [table.slice(0, 0), *_scored(items, preparer, classifier)]
        rows = pa.concat_tables(each.cast(table.schema) for each in again)
        kept = table.filter(pc.invert(failed))
        merged = pa.concat_tables([kept, rows]) if len(rows) else kept
        order = _order(merged, [path_text(item.path, hashed) for item in everything])
        _replace(output, parts, shard, merged.take(order))
        tried += len(paths)
    return tried


def _scored(items: list[Item], preparer: Preparer, classifier: Classifier) -> Iterator[pa.Table]:
    starts = range(0, len(items), _ITEMS_AT_ONCE)
    chunks = (items[start : start + _ITEMS_AT_ONCE] for start in starts)
    for prepared in preparer.stream(chunks, classifier.kept):
        if isinstance(prepared, UnfinishedError):
            raise prepared
        assert isinstance(prepared, Prepared)
        yield classifier.classify(prepared)


def _order(table: pa.Table, paths: list[str]) -> pa.Array[Any]:
    """Row numbers in the order of the shard's items, faces from left to right."""
    place = pc.index_in(table.column("path"), pa.array(paths, pa.string()))
    keys = pa.Table.from_arrays([place, table.column("face_index")], names=["place", "face"])
    return pc.sort_indices(keys, [("place", "ascending"), ("face", "ascending")])


def drop_replaced(output: Output, first_shard: int, parts: Parts) -> None:
    """Drop the earlier rows of inputs that the newest snapshot has in a changed version.

    Args:
        output: the job's directory.
        first_shard: of the newest snapshot.
        parts: opens a part.
    """
    for shard, paths in _replaced(output, first_shard).items():
        table = pq.read_table(output.part(shard))
        stays = pc.invert(pc.is_in(table.column("path"), pa.array(sorted(paths), pa.string())))
        if not pc.all(stays).as_py():
            _replace(output, parts, shard, table.filter(stays))


def _replaced(output: Output, first_shard: int) -> dict[int, set[str]]:
    """Earlier shard -> the paths in it that have a newer version."""
    newer = (i for n in output.planned() if n >= first_shard for i in read_items(output.inputs(n)))
    known = known_items(output, first_shard)
    before = next(known, None)
    changed: set[str] = set()
    for item in newer:
        while before is not None and before.key < item.key:
            before = next(known, None)
        if before is not None and before.path == item.path:
            changed.add(item.path)
    found: dict[int, set[str]] = defaultdict(set)
    if changed:
        for shard in (n for n in output.planned() if n < first_shard):
            for item in read_items(output.inputs(shard)):
                if item.path in changed:
                    found[shard].add(readable_path(item.path))
    return found


def _replace(output: Output, parts: Parts, shard: int, table: pa.Table) -> None:
    writer = parts(shard)
    try:
        writer.add(0, table)
        size = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    output.write_entry({"shard": shard, "bytes": size, **writer.counts.as_dict()})
