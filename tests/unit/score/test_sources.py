"""Sources: what is listed, in one order, each path once, and continued where it stopped."""

from __future__ import annotations

import csv
import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UserError
from fer_ray.score import folders
from fer_ray.score.external_sort import sorted_unique
from fer_ray.score.items import Item, key_of, path_of, readable_path
from fer_ray.score.listing import Listing, open_sources
from fer_ray.score.options import SourceOptions
from fer_ray.score.transient import Patience
from tests.inventories import write_inventory
from tests.object_storage import s3_server, upload
from tests.scoring import image_bytes, rows_of, scored


def listing(*names: object, **options: Any) -> Listing:
    return open_sources([str(n) for n in names], SourceOptions(**options), Patience(0.1), None)


def paths(found: Iterator[Item]) -> list[str]:
    return [item.path for item in found]


# --- folders ------------------------------------------------------------------------------------


def test_a_walk_is_in_the_order_of_whole_paths(tmp_path: Path) -> None:
    names = ["a/x.png", "a-b.png", "a.png", "a/b/c.png", "a0/y.png", "Z.png", "ä/ö.png", "a/z.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    found = paths(listing(tmp_path).items(b""))
    assert found == sorted((f"{tmp_path}/{name}" for name in names), key=key_of)


@settings(max_examples=30)
@given(
    names=st.sets(
        st.lists(st.text("ab-/.é\n", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join),
        max_size=12,
    ),
    data=st.data(),
)
def test_a_listing_goes_on_after_any_item(
    names: set[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("walk")
    for name in names:
        path = Path(os.path.normpath(f"{root}/in/x/{name}/file.png"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (root / "in").mkdir(exist_ok=True)
    (root / "in" / "words.txt").write_text("")
    source = listing(root / "in")
    whole = paths(source.items(b""))
    assert whole == sorted(set(whole), key=key_of)
    if not whole:
        return
    cut = data.draw(st.integers(0, len(whole) - 1))
    again = listing(root / "in")
    assert paths(again.items(key_of(whole[cut]))) == whole[cut + 1 :]
    first = listing(root / "in")
    stream = first.items(b"")
    for _ in range(cut + 1):
        next(stream)
    assert first.skipped + again.skipped == source.skipped, "each passed-over file counts once"


def test_what_is_passed_over_is_counted(folder: Path) -> None:
    (folder / "circle").symlink_to(folder)
    (folder / "circle.png").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.png").write_bytes(image_bytes())
    source = listing(folder)
    assert len(paths(source.items(b""))) == 15
    expected = {"other_name": 2, "link_to_folder": 1, "special": 1, "hidden": 2}
    assert source.skipped == expected


def test_a_huge_folder_is_sorted_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = paths(listing(folder).items(b""))
    monkeypatch.setattr(folders, "_HELD_NAMES", 3)
    assert paths(listing(folder).items(b"")) == whole


def test_sources_are_merged_and_each_path_is_listed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    source = listing(".", "sub", "face00.png", folder / "notes.md", "*.jpg")
    found = paths(source.items(b""))
    assert found == sorted(set(found), key=key_of)
    assert len(found) == 16, "a file that is named is taken whatever its name"


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 9)), max_size=40), st.integers(1, 9))
def test_sorting_on_the_disk_is_sorting(pairs: list[tuple[str, int]], run: int) -> None:
    items = [Item(text, number) for text, number in pairs if text.isprintable()]
    expected = {item.path: item for item in items}  # of equal paths the last
    found = list(sorted_unique(iter(items), run))
    assert [item.path for item in found] == sorted(expected, key=key_of)
    assert all(expected[item.path] == item for item in found)


def test_readable_paths() -> None:
    assert readable_path("/a/ü.png") == "/a/ü.png"
    assert readable_path(os.fsdecode(b"/a/\xff.png")) == r"/a/\xff.png"
    assert key_of(path_of(b"/a/\xff.png")) == b"/a/\xff.png"


# --- lists and tables ---------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["\n", "\r\n", "\0"])
def test_a_list_of_paths(
    folder: Path, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    lines = ["sub/face01.png", str(folder / "face00.png"), "", "sub/face01.png", "http://x.y/z.png"]
    (tmp_path / "names.txt").write_bytes(mark.join(lines).encode())
    found = paths(listing(tmp_path / "names.txt").items(b""))
    assert found == [f"{folder}/face00.png", f"{folder}/sub/face01.png", "http://x.y/z.png"]


def test_a_name_with_a_newline_in_a_nul_separated_list(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"/a/new\nline.png\0/b/\xff.png\0")
    found = paths(listing(tmp_path / "names.txt").items(b""))
    assert [key_of(path) for path in found] == [b"/a/new\nline.png", b"/b/\xff.png"]


def test_a_table_of_paths_keeps_columns(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    names = ["face00.png", "face02.png", "empty.png"]
    table = pa.table(
        {
            "file": [str(folder / name) for name in reversed(names)] + [None],
            "age": pa.array([3, 2, None, 9], pa.int32()),
            "note": ["c", "b", "a", "z"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    from fer_ray.score.options import SourceOptions as Tables

    tables = Tables(path_column="file", keep_columns=("note", "age"))
    report = scored(tmp_path / "t.parquet", tmp_path / "out", predictor, tables=tables)
    rows = rows_of(tmp_path / "out").to_pylist()
    assert [(Path(r["path"]).name, r["note"], r["age"]) for r in rows] == [
        ("empty.png", "c", 3),
        ("face00.png", "a", None),
        ("face02.png", "b", 2),
    ]
    assert report.skipped == {"no_path": 1}
    with pytest.raises(UserError, match="has no column path; it has file, age, note"):
        listing(tmp_path / "t.parquet")


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_of_paths(folder: Path, tmp_path: Path, packed: bool) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["path", "who"], [folder / "face00.png", "A, B"], [folder / "x.png", ""]])
    data = text.getvalue().encode()
    place = tmp_path / ("t.csv.gz" if packed else "t.csv")
    place.write_bytes(gzip.compress(data) if packed else data)
    found = list(listing(place, keep_columns=("who",)).items(b""))
    assert [(Path(item.path).name, item.kept) for item in found] == [
        ("face00.png", ("A, B",)),
        ("x.png", ("",)),
    ]


def test_a_parquet_of_images(tmp_path: Path, predictor: Predictor) -> None:
    images = [image_bytes(n) for n in range(5)] + [b"", None]
    table = pa.table({"image": pa.array(images, pa.binary()), "id": list("gfedcba")})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    tables = SourceOptions(bytes_column="image", keep_columns=("id",))
    scored(tmp_path / "t.parquet", tmp_path / "out", predictor, tables=tables, rows_a_shard=3)
    rows = rows_of(tmp_path / "out").to_pylist()
    assert [row["id"] for row in rows] == list("gfedcba"), "in the table's order"
    assert [row["status"] for row in rows] == ["ok"] * 5 + ["error"] * 2
    assert rows[0]["path"] == f"{tmp_path}/t.parquet#000000000000"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(images[3] or b"")
    scored(tmp_path / "one", tmp_path / "alone", predictor)
    (alone,) = rows_of(tmp_path / "alone").to_pylist()
    assert rows[3]["p_happy"] == pytest.approx(alone["p_happy"], abs=1e-6)


INVENTORY: list[tuple[str, str, int, str, bool, bool]] = [
    ("b", "x/ü y.png", 7, "e1", True, False),
    ("b", "x/old.png", 7, "e2", False, False),
    ("b", "x/gone.png", 0, "e3", True, True),
    ("b", "x/words.txt", 7, "e4", True, False),
    ("b", "a/first.JPG", 9, "e5", True, False),
]


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_an_s3_inventory(tmp_path: Path, form: str) -> None:
    source = listing(write_inventory(tmp_path, form, INVENTORY))
    found = [(item.path, item.size_bytes, item.version) for item in source.items(b"")]
    assert found == [("s3://b/a/first.JPG", 9, "e5"), ("s3://b/x/ü y.png", 7, "e1")]
    assert source.skipped == {"old_version": 2, "other_name": 1}


@pytest.fixture(scope="module")
def bucket() -> Iterator[pafs.S3FileSystem]:
    with s3_server() as files:
        yield files


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_an_inventory_in_its_bucket_is_scored(
    tmp_path: Path, form: str, predictor: Predictor, bucket: pafs.S3FileSystem
) -> None:
    keys = [f"{form}/{number} ü.png" for number in range(5)]
    rows = [("bucket", key, 0, f"e{number}", True, False) for number, key in enumerate(keys)]
    rows.append(("bucket", f"{form}/gone.png", 5, "e9", True, False))
    (tmp_path / form).mkdir()
    for number, key in enumerate(keys):
        (tmp_path / key).write_bytes(image_bytes(number))
    manifest = write_inventory(tmp_path, form, rows, store="bucket")
    upload(bucket, tmp_path / form, f"bucket/{form}")
    upload(bucket, tmp_path / "inv", "bucket/inv")
    place = f"s3://bucket/{manifest.relative_to(tmp_path)}"
    report = scored(place, tmp_path / "out", predictor)
    assert report.errors == {"missing": 1}
    found = rows_of(tmp_path / "out").to_pylist()
    assert [row["path"] for row in found] == [f"s3://bucket/{row[1]}" for row in rows]
    assert [row["status"] for row in found] == ["ok"] * 5 + ["error"]


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="no manifest of S3 Inventory"):
        listing(tmp_path / "manifest.json")


# --- archives -----------------------------------------------------------------------------------


def archive(root: Path, form: str) -> Path:
    members = {f"sub/{n}.png": image_bytes(n) for n in range(4)}
    members |= {"a.png": b"", "notes.md": b"words", ".hidden.png": b"x", "__MACOSX/._a.png": b"x"}
    place = root / f"faces.{form}"
    if form == "zip":
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
    else:
        with tarfile.open(place, "w:gz" if form != "tar" else "w") as packed_tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                packed_tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            packed_tar.addfile(link)
    return place


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tgz"])
def test_archives_are_read_in_place(tmp_path: Path, form: str, predictor: Predictor) -> None:
    place = archive(tmp_path, form)
    scored(place, tmp_path / "out", predictor, rows_a_shard=2)
    rows = rows_of(tmp_path / "out").to_pylist()
    assert [row["path"] for row in rows] == [
        f"{place}!/{name}" for name in ("a.png", *(f"sub/{n}.png" for n in range(4)))
    ]
    assert [row["error_type"] for row in rows] == ["empty", None, None, None, None]
    (tmp_path / "plain").mkdir()
    for number in range(4):
        (tmp_path / "plain" / f"{number}.png").write_bytes(image_bytes(number))
    scored(tmp_path / "plain", tmp_path / "alone", predictor)
    for row, alone in zip(rows[1:], rows_of(tmp_path / "alone").to_pylist(), strict=True):
        assert row["p_happy"] == pytest.approx(alone["p_happy"], abs=1e-6)


def test_a_damaged_archive_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    (tmp_path / "x.tar").write_bytes(b"no tar" * 200)
    for name in ("x.zip", "x.tar"):
        with pytest.raises(UserError, match=name):
            list(listing(tmp_path / name).items(b""))


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "does not exist"),
        ("gone/*.png", "matches no image"),
        ("https://x.y/z.png", "from lists only"),
        ("ftp://x.y/z", "cannot be opened"),
        ("s3://b/faces.zip", "read from a disk"),
    ],
)
def test_what_cannot_be_a_source(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        listing(name)


def test_a_list_with_a_strange_scheme(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ftp://x.y/z.png\n")
    with pytest.raises(UserError, match="lists may hold paths"):
        list(listing(tmp_path / "names.txt").items(b""))
    with pytest.raises(UserError, match="a path column or a bytes column"):
        SourceOptions(path_column="a", bytes_column="b")
    with pytest.raises(UserError, match="--keep-columns is for"):
        listing(tmp_path, keep_columns=("a",))
