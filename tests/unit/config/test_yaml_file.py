"""YAML with places: one truth for types, and an error that points at its line."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_ray.config.yaml_file import MAX_YAML_BYTES, parse_document, parse_value, read_document
from fer_ray.errors import ConfigError, Problem, UserError


def fault_of(text: str) -> Problem:
    """The only problem of a text."""
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "a.yaml")
    (problem,) = caught.value.problems
    return problem


def test_types_are_those_of_yaml_1_2() -> None:
    text = (
        "a: on\nb: yes\nc: 1.0e-3\nd: 017\ne: 2001-01-01\nf: null\ng: true\nh: '5'\ni: 5\nj: 0x10\n"
    )
    tree = parse_document(text, "a.yaml").tree
    assert tree == {
        "a": "on",
        "b": "yes",
        "c": 0.001,
        "d": 17,
        "e": "2001-01-01",
        "f": None,
        "g": True,
        "h": "5",
        "i": 5,
        "j": 16,
    }
    assert {key: type(value) for key, value in tree.items() if key in "cdg"} == {
        "c": float,
        "d": int,
        "g": bool,
    }


def test_every_key_and_item_has_its_place() -> None:
    marks = parse_document("a:\n  b: [1, 22]\nc: {d: 3}\n", "a.yaml").marks
    assert marks[("a",)] == (1, 1)
    assert marks[("a", "b")] == (2, 3)
    assert marks[("a", "b", 1)] == (2, 10)
    assert marks[("c", "d")] == (3, 5)


def test_a_syntax_error_comes_alone_with_its_place() -> None:
    problem = fault_of("version: 1\nmodel: {cnn: {}\nunknown: 1\nversion: 2\n")
    assert problem.message.startswith("not valid YAML")
    assert problem.line >= 2
    assert str(problem).startswith(f"a.yaml:{problem.line}:{problem.column}: ")


def test_a_duplicate_key_comes_alone_and_names_the_first() -> None:
    problem = fault_of("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert (problem.line, problem.column) == (5, 3)
    assert problem.message == "duplicate key 'c' (first on line 3)"
    assert problem.source_line == "  c: 3"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: &x 1\n", 1, 4, "anchors and aliases"),
        ("a: 1\nb: *x\n", 2, 4, "anchors and aliases"),
        ("a: 1\nb: !!int '3'\n", 2, 4, "tags are not allowed"),
        ("a: !!python/object:os.system x\n", 1, 4, "tags are not allowed"),
        ("a: !!set {b}\n", 1, 4, "tags are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, 1, "one document"),
        ("%YAML 1.1\n---\na: on\n", 2, 1, "YAML 1.2"),
        ("? [a]\n: 1\n", 1, 3, "a key is a word"),
        ("- a\n", 1, 1, "a mapping of keys"),
        ("", 1, 1, "a mapping of keys"),
        ("a: " + "9" * 5000 + "\n", 1, 1, "not a value"),
        ("a: " + "[" * 50 + "]" * 50 + "\n", 1, 43, "nested deeper than 40"),
    ],
)
def test_what_a_config_may_not_have(text: str, line: int, column: int, words: str) -> None:
    problem = fault_of(text)
    assert (problem.line, problem.column) == (line, column)
    assert words in problem.message


def test_lines_are_counted_as_yaml_counts_them() -> None:
    # str.splitlines would also break at U+2028 and show the wrong line.
    problem = fault_of("a: 'x\u2028y'\nb: 1\nb: 2\n")
    assert (problem.line, problem.source_line) == (3, "b: 2")


@given(st.text(alphabet="ab:-?[]{}#&*!|>'\"%@`,\n \t01.\u2028\x85~<", max_size=60))
def test_any_text_parses_or_is_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_document(text, "a.yaml").tree, dict)


def test_a_file_that_cannot_be_read_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot read"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: ä".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_document(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(UserError, match="at most"):
        read_document(tmp_path / "large.yaml")


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: 1\r\nb:\r\n  c: x\r\n")
    document = read_document(tmp_path / "a.yaml")
    assert document.tree == {"a": 1, "b": {"c": "x"}}
    assert document.lines == ["a: 1", "b:", "  c: x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.0e-3", 0.001), ("[1, 2]", [1, 2]), ("none", "none"), ("null", None), ("", None)],
)
def test_the_value_of_an_override_is_yaml(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["[1", "1\nb: 2", "&x 1", "!!int 3"])
def test_the_value_of_an_override_is_one_value(text: str) -> None:
    with pytest.raises(ValueError):
        parse_value(text)
