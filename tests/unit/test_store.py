"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from fer_ray.errors import OutputExistsError, UserError
from fer_ray.store import (
    MAX_JSON_BYTES,
    new_directory,
    read_json,
    replacing,
    require_absent,
    swap_symlink,
    write_atomic,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic_makes_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"], "no temporary is left"


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"ha")
            assert path.read_bytes() == b"old", "the old file stays until the end"
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_json_is_the_same_bytes_for_the_same_document(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": [1, 2.5], "a": "ä"})
    write_json(tmp_path / "two", {"a": "ä", "b": [1, 2.5]})
    text = (tmp_path / "one").read_text(encoding="utf-8")
    assert text == (tmp_path / "two").read_text(encoding="utf-8")
    assert text == '{\n  "a": "ä",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    assert read_json(tmp_path / "one") == {"a": "ä", "b": [1, 2.5]}


def test_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000],
    ids=["empty", "half", "binary", "deeply nested"],
)
def test_reading_what_is_not_json_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)


def test_reading_a_missing_or_huge_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path / "none")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)  # sparse: takes no space
    with pytest.raises(UserError, match="not a fer-ray file"):
        read_json(tmp_path / "huge")


def test_require_absent(tmp_path: Path) -> None:
    require_absent(tmp_path / "none", "it", "remedy")
    (tmp_path / "empty").mkdir()
    require_absent(tmp_path / "empty", "it", "remedy")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(OutputExistsError, match="already exists"):
            require_absent(tmp_path / name, "it", "remedy")
    with pytest.raises(OutputExistsError):
        require_absent(tmp_path, "it", "remedy")


def test_a_new_directory_is_invisible_until_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_directory(out) as directory:
        (directory / "file").write_bytes(b"x")
        assert not out.exists()
    assert names(out) == ["file"]
    assert names(out.parent) == ["out"]


def test_a_new_directory_takes_the_place_of_an_empty_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with new_directory(out) as directory:
        (directory / "file").write_bytes(b"x")
    assert names(out) == ["file"]


def test_a_directory_that_fails_vanishes(tmp_path: Path) -> None:
    def fill_half() -> None:
        with new_directory(tmp_path / "out") as directory:
            (directory / "file").write_bytes(b"x")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fill_half()
    assert names(tmp_path) == []


def test_a_directory_that_was_filled_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def race() -> None:
        with new_directory(out):
            out.mkdir()
            (out / "theirs").write_bytes(b"x")

    with pytest.raises(OSError, match="not empty"):
        race()
    assert names(out) == ["theirs"]
    assert names(tmp_path) == ["out"]


def test_swapping_a_symlink(tmp_path: Path) -> None:
    link = tmp_path / "best"
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        swap_symlink(link, target)
        assert link.readlink() == Path(target)
    assert names(tmp_path) == ["best", "one", "two"]
