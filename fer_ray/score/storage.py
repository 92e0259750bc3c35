"""pyarrow's file systems for object storage, one a bucket and process."""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa
import pyarrow.fs

from fer_ray.data.sources.remote import shown
from fer_ray.errors import UserError


def filesystem_of(uri: str) -> tuple[Any, str]:
    """A file system and the path in it.

    Args:
        uri: `s3://[key:secret@]bucket/path[?options]` or `gs://...`.

    Raises:
        UserError: unknown scheme, options or bucket.
        OSError: the storage does not answer.
    """
    scheme, _, rest = uri.partition("://")
    place, _, options = rest.partition("?")
    authority, _, path = place.partition("/")
    bucket = authority.rpartition("@")[2]
    return _of_bucket(scheme, authority, options), f"{bucket}/{path}".rstrip("/")


def bucket_of(uri: str) -> str:
    """`s3://bucket` of an address, without keys and options."""
    scheme, _, rest = shown(uri).partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def address_in(path: str, storages: dict[str, str]) -> str:
    """An item's path with the keys and options that its bucket's source was given with.

    Args:
        path: of an item; `?` and `@` in it are part of the key.
        storages: `bucket_of` each source -> the source's address as given.
    """
    scheme, _, rest = path.partition("://")
    bucket, _, _ = rest.partition("/")
    return storages.get(f"{scheme}://{bucket}", f"{scheme}://{bucket}")


@functools.lru_cache(maxsize=64)
def _of_bucket(scheme: str, authority: str, options: str) -> Any:
    uri = f"{scheme}://{authority}" + (f"?{options}" if options else "")
    try:
        return pa.fs.FileSystem.from_uri(uri)[0]
    except OSError as error:
        if "not found" not in str(error):
            raise  # the network, not the address
        raise UserError(f"{shown(uri)}: {str(error)[:200]}") from error
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{shown(uri)} cannot be opened: {str(error)[:200]}") from error
