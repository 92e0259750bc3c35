"""Sources in S3, read from a real server (moto's, on loopback)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from fer_ray.data.importing import import_images
from fer_ray.data.sources.remote import shown
from fer_ray.errors import DataError
from tests.object_storage import s3_server, upload
from tests.unit.data.kaggle import make_folder, make_zip


@pytest.fixture(scope="module")
def bucket() -> Iterator[pafs.S3FileSystem]:
    with s3_server() as files:
        yield files


def test_a_zip_and_a_prefix_in_s3_give_the_local_rows(
    tmp_path: Path, bucket: pafs.S3FileSystem
) -> None:
    folder = make_folder(tmp_path / "folder")
    upload(bucket, make_zip(folder, tmp_path / "faces.zip"), "bucket/faces.zip")
    upload(bucket, folder, "bucket/faces")
    local = import_images(folder, tmp_path / "local", size_px=48, on_error="stop")
    for number, key in enumerate(("faces.zip", "faces", "faces/")):
        source = f"s3://bucket/{key}"
        report = import_images(source, tmp_path / f"{number}", size_px=48, on_error="stop")
        assert report.fingerprint == local.fingerprint


def test_what_is_not_there_is_said(tmp_path: Path, bucket: pafs.S3FileSystem) -> None:
    with pytest.raises(DataError, match=r"s3://bucket/none\.zip does not exist"):
        import_images("s3://bucket/none.zip", tmp_path / "out", size_px=48, on_error="stop")
    with pytest.raises(DataError, match="s3://absent/x"):
        import_images("s3://absent/x", tmp_path / "out", size_px=48, on_error="stop")
    assert not (tmp_path / "out").exists()


def test_keys_in_an_address_are_never_shown() -> None:
    assert shown("s3://key:secret@bucket/a?endpoint_override=x") == "s3://bucket/a"
