"""S3 inventories as S3 lays them out."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = {
    "Bucket": "bucket",
    "Key": "key",
    "Size": "size",
    "ETag": "e_tag",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
}
"""Names in a CSV's schema, and in a Parquet file."""


def write_inventory(
    root: Path,
    form: str,
    rows: Sequence[tuple[str, str, int, str, bool, bool]],
    *,
    store: str = "store",
) -> Path:
    """Manifest and data file below one prefix of `root`; gives the manifest's path.

    Args:
        root: stands for the bucket that holds the inventory.
        form: `CSV` or `Parquet`.
        rows: in the order of `COLUMNS`.
        store: name of that bucket.
    """
    base = root / "inv" / "bucket" / "daily"
    (base / "2026-11-01T00-00Z").mkdir(parents=True)
    (base / "data").mkdir()
    key = f"inv/bucket/daily/data/1.{'csv.gz' if form == 'CSV' else 'parquet'}"
    if form == "CSV":
        text = io.StringIO()
        quoted = [[bucket, quote_plus(name, "/"), *rest] for bucket, name, *rest in rows]
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows(
            [[str(v).lower() if isinstance(v, bool) else v for v in row] for row in quoted]
        )
        (root / key).write_bytes(gzip.compress(text.getvalue().encode()))
    else:
        columns = enumerate(COLUMNS.values())
        table = pa.table({name: [row[index] for row in rows] for index, name in columns})
        pq.write_table(table, root / key)
    manifest = {
        "sourceBucket": rows[0][0],
        "destinationBucket": f"arn:aws:s3:::{store}",
        "fileFormat": form,
        "fileSchema": ", ".join(COLUMNS),
        "files": [{"key": key}],
    }
    place = base / "2026-11-01T00-00Z" / "manifest.json"
    place.write_text(json.dumps(manifest))
    return place
