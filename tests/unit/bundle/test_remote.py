"""Bundles in object storage: a real S3 protocol on this machine, copied, checked, kept."""

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer

from fer_ray import api
from fer_ray.bundle.load import find_bundle, load_bundle
from fer_ray.bundle.remote import cache_directory
from fer_ray.errors import BundleError
from fer_ray.evaluation.ensembling import make_ensemble
from tests.bundles import tiny_bundle


@pytest.fixture(scope="module")
def storage() -> Iterator[pafs.FileSystem]:
    """An empty bucket `models`, and the environment that leads to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3, _ = pafs.FileSystem.from_uri("s3://models?allow_bucket_creation=true")
        s3.create_dir("models")
        yield s3
    server.stop()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def upload(storage: pafs.FileSystem, source: Path, name: str) -> str:
    """Put a directory below `s3://models/`; gives its address."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            key = f"models/{name}/{file.relative_to(source).as_posix()}"
            with storage.open_output_stream(key) as target:
                target.write(file.read_bytes())
    return f"s3://models/{name}"


def test_it_is_copied_and_checked(original: Path, storage: pafs.FileSystem) -> None:
    uri = upload(storage, original, "tiny")
    bundle = api.load_bundle(uri)
    assert bundle.id == load_bundle(original).id
    assert bundle.path.is_relative_to(cache_directory())
    assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o700, "readable by its owner only"
    assert list(cache_directory().iterdir()) == [bundle.path], "nothing temporary is left"
    assert find_bundle(uri + "/") == bundle.path


def test_an_unchanged_bundle_is_not_copied_again(original: Path, storage: pafs.FileSystem) -> None:
    uri = upload(storage, original, "again")
    path = find_bundle(uri)
    before = (path / "model.safetensors").stat().st_mtime_ns
    storage.delete_file("models/again/model.safetensors")
    assert find_bundle(uri) == path, "only the manifest was asked for"
    assert (path / "model.safetensors").stat().st_mtime_ns == before


def test_another_bundle_at_the_same_address_is_another_copy(
    original: Path, storage: pafs.FileSystem, tmp_path: Path
) -> None:
    first = find_bundle(upload(storage, original, "same"))
    other = tiny_bundle(tmp_path / "other", seed=1)
    second = find_bundle(upload(storage, other, "same"))
    assert load_bundle(first).id == load_bundle(original).id
    assert load_bundle(second).id == load_bundle(other).id


def test_a_damaged_copy_is_fetched_again(original: Path, storage: pafs.FileSystem) -> None:
    uri = upload(storage, original, "damaged")
    path = find_bundle(uri)
    (path / "model.safetensors").write_bytes(b"x")
    assert load_bundle(find_bundle(uri)).id == load_bundle(original).id


def test_only_listed_files_are_copied(copy: Path, storage: pafs.FileSystem, tmp_path: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "members" / "0").mkdir(parents=True)
    (copy / "members" / "0" / "evil").write_text("x")
    path = find_bundle(upload(storage, copy, "more"))
    assert not (path / "notes.txt").exists()
    assert not (path / "members").exists()


def test_an_edited_or_missing_card_warns(copy: Path, storage: pafs.FileSystem) -> None:
    uri = upload(storage, copy, "card")
    with storage.open_output_stream("models/card/README.md") as target:
        target.write(b"mine")
    assert "card was edited" in api.load_bundle(uri).warnings[0]
    shutil.rmtree(cache_directory())
    storage.delete_file("models/card/README.md")
    assert "is missing" in api.load_bundle(uri).warnings[0]


def test_changed_files_large_ones_and_missing_ones_are_refused(
    original: Path, storage: pafs.FileSystem
) -> None:
    uri = upload(storage, original, "hostile")
    for data, words in ((b"{}", "config.json was changed"), (b" " * 300_000, "at most|more than")):
        with storage.open_output_stream("models/hostile/config.json") as target:
            target.write(data)
        with pytest.raises(BundleError, match=words):
            find_bundle(uri)
    storage.delete_file("models/hostile/config.json")
    with pytest.raises(BundleError, match=r"hostile/config\.json is missing"):
        find_bundle(uri)
    assert list(cache_directory().iterdir()) == [], "nothing is left of what was refused"


def test_names_that_lead_out_are_never_asked_for(copy: Path, storage: pafs.FileSystem) -> None:
    document = json.loads((copy / "bundle.json").read_text())
    document["files"]["../../evil"] = "0" * 64
    (copy / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="sha256 does not hold"):
        find_bundle(upload(storage, copy, "names"))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://models/none", r"is not a bundle: it has no bundle\.json"),
        ("s3://nobucket/none", "is not a bundle"),
        ("nothing://x/y", "cannot be read"),
        ("s3://", "cannot be read"),
    ],
)
def test_addresses_without_a_bundle(storage: pafs.FileSystem, uri: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        find_bundle(uri)


def test_keys_of_an_address_are_not_shown(storage: pafs.FileSystem) -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle("s3://user:secret@models/none?region=us-east-1")
    assert "secret" not in str(caught.value)
    assert "s3://models/none" in str(caught.value)


def test_an_ensemble_comes_with_its_members(
    original: Path, storage: pafs.FileSystem, tmp_path: Path
) -> None:
    members = (load_bundle(original), load_bundle(tiny_bundle(tmp_path / "b", seed=1)))
    made = make_ensemble(members, tmp_path / "e", name="two", data=None)
    uri = upload(storage, made.path, "ensemble")
    fetched = api.load_bundle(uri)
    assert fetched.id == made.id
    assert len(fetched.members) == 2
    assert find_bundle(uri) == fetched.path
    storage.delete_dir("models/ensemble/members/1")
    shutil.rmtree(cache_directory())
    with pytest.raises(BundleError, match="ensemble/members/1 is not a bundle"):
        find_bundle(uri)
