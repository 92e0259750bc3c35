"""YAML 1.2 with the place of every key, so that an error can point at it.

Anchors, aliases, tags and several documents are refused: a config is data that reads top to bottom.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fer_ray.errors import ConfigError, Problem, UserError

MAX_YAML_BYTES = 1024 * 1024
MAX_DEPTH = 40

Address = tuple[str | int, ...]


@dataclass
class Document:
    """A parsed file.

    Attributes:
        place: the file's name, for messages.
        lines: its text by line.
        tree: plain dicts, lists and scalars.
        marks: raw address (with reserved words, list positions) -> (line, column) from 1, of the
            key where there is one, else of the value.
        origins: raw address -> the `-s` override that wrote it.
    """

    place: str
    lines: list[str]
    tree: dict[str, Any]
    marks: dict[Address, tuple[int, int]]
    origins: dict[Address, str] = field(default_factory=dict)

    def problem(self, address: Address, message: str) -> Problem:
        """A problem at an address, or at its nearest ancestor that has a place."""
        for length in range(len(address), -1, -1):
            prefix = address[:length]
            if prefix in self.origins:
                return Problem(self.origins[prefix], 0, 0, message)
            if prefix in self.marks:
                line, column = self.marks[prefix]
                return Problem(self.place, line, column, message, self.lines[line - 1])
        return Problem(self.place, 0, 0, message)


def read_document(path: Path) -> Document:
    """Parse a YAML file.

    Raises:
        UserError: missing, too large, or not UTF-8.
        ConfigError: a syntax error or a duplicate key, alone.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_YAML_BYTES:
        raise UserError(f"{path} has {len(data):,} bytes; a config has at most {MAX_YAML_BYTES:,}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    return parse_document(text, str(path))


def parse_document(text: str, place: str) -> Document:
    """Parse YAML text; see `read_document`."""
    # YAML 1.2's own line breaks; str.splitlines knows more, and every place would shift.
    lines = re.split(r"\r\n|\r|\n", text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    yaml = YAML(typ="safe", pure=True)
    try:
        _refuse_anchors(text, place, lines)
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        source = lines[line - 1] if 0 < line <= len(lines) else ""
        message = f"not valid YAML: {error.problem or error.context}"
        raise ConfigError([Problem(place, line, column, message, source)]) from error
    except (YAMLError, ValueError) as error:
        raise ConfigError([Problem(place, 0, 0, f"not valid YAML: {error}")]) from error
    if not isinstance(root, MappingNode):
        raise ConfigError([Problem(place, 1, 1, "a config is a mapping of keys", lines[0])])
    document = Document(place, lines, {}, {})
    document.tree = _plain(root, (), document, yaml)
    return document


def parse_value(text: str) -> Any:
    """Parse the value of a `-s key=value` override.

    Raises:
        ValueError: not YAML.
    """
    try:
        document = parse_document(f"value: {text}\n", "-s")
    except ConfigError as error:
        raise ValueError(error.problems[0].message) from error
    if set(document.tree) != {"value"}:
        raise ValueError("more than one value")
    return document.tree["value"]


def _refuse_anchors(text: str, place: str, lines: list[str]) -> None:
    depth = 0
    documents = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = type(event).__name__
        fault = None
        if kind == "DocumentStartEvent":
            documents += 1
            if documents > 1:
                fault = "one document is wanted, but a second begins here"
            elif event.version not in (None, (1, 2)):
                fault = "a config is YAML 1.2; leave the %YAML line out"
        elif getattr(event, "tag", None) is not None:
            fault = f"tags are not allowed, but got {event.tag}; write the plain value"
        elif kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
            fault = "anchors and aliases are not allowed; write the value out"
        elif kind.endswith("StartEvent") and kind != "StreamStartEvent":
            depth += 1
            if depth > MAX_DEPTH:
                fault = f"nested deeper than {MAX_DEPTH} levels"
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            depth -= 1
        if fault:
            mark = event.start_mark
            source = lines[mark.line] if mark.line < len(lines) else ""
            raise ConfigError([Problem(place, mark.line + 1, mark.column + 1, fault, source)])


def _plain(node: Node, address: Address, document: Document, yaml: YAML) -> Any:
    document.marks.setdefault(address, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, MappingNode):
        return _plain_mapping(node, address, document, yaml)
    if isinstance(node, SequenceNode):
        return [
            _plain(child, (*address, position), document, yaml)
            for position, child in enumerate(node.value)
        ]
    assert isinstance(node, ScalarNode)
    tag = str(node.tag)
    if tag.endswith((":null", ":bool", ":int", ":float")):
        try:
            return yaml.constructor.construct_object(node)
        except ValueError as error:  # such as a whole number of thousands of digits
            raise ConfigError([document.problem(address, f"not a value: {error}")]) from error
    if tag.endswith((":str", ":timestamp", ":value", ":merge")):
        return str(node.value)
    raise ConfigError([document.problem(address, f"the tag {tag} is not allowed")])


def _plain_mapping(
    node: MappingNode, address: Address, document: Document, yaml: YAML
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value) if isinstance(key_node, ScalarNode) else None
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        source = document.lines[line - 1]
        if key is None:
            raise ConfigError([Problem(document.place, line, column, "a key is a word", source)])
        if key in result:
            first = document.marks[(*address, key)][0]
            message = f"duplicate key {key!r} (first on line {first})"
            raise ConfigError([Problem(document.place, line, column, message, source)])
        document.marks[(*address, key)] = (line, column)
        result[key] = _plain(value_node, (*address, key), document, yaml)
    return result
