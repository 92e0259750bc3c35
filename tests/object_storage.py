"""A real S3 server on loopback (moto's), and the environment that leads pyarrow to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer


@contextlib.contextmanager
def s3_server() -> Iterator[pafs.S3FileSystem]:
    """Run a server with the empty bucket `bucket`; `s3://bucket/...` means it in this process
    and in those it starts."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            files, _ = pafs.FileSystem.from_uri("s3://bucket")
            allowed = pafs.S3FileSystem(
                endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True
            )
            allowed.create_dir("bucket")
            yield files
    finally:
        server.stop()


def upload(files: pafs.S3FileSystem, source: Path, key: str) -> None:
    """Copy a file, or all files below a folder, to `key`."""
    pafs.copy_files(str(source), key, pafs.LocalFileSystem(), files)
