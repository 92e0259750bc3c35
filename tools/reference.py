"""Write docs/search-space.md and docs/cli.md from the code: the schema, and the command line.

    python tools/reference.py            writes both
    python tools/reference.py --check    exits 1 where one is not what it would write

`make reference`. tests/unit/test_reference.py keeps them current.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
import yaml

from fer_ray.cli.main import app
from fer_ray.config.json_schema import space_schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- Written by `make reference` from the code. Do not edit. -->"

# --- the search space -----------------------------------------------------------------------------

SPACE_INTRODUCTION = """\
# The YAML of a search space

One file says what is trained, what is searched and how. `fer-ray check FILE` shows it as a table,
or every error with its line; `fer-ray plan FILE` what it will cost. The line

```yaml
# yaml-language-server: $schema=../docs/search-space.schema.json
```

at its top switches completion and checks on in editors (`fer-ray schema` prints that schema).
Everything has a default but `version` (1) and `name`; what is unknown is an error.

## Holes: what is searched

Where a field below says *searched*, its value may be one of

| | |
|---|---|
| `{int: [1, 4]}` | a whole number, both ends included; `step: 2` |
| `{float: [0.0, 0.5]}` | a number; `step: 0.1` |
| `{log: [1.0e-4, 1.0e-1]}` | a number, spread evenly over its logarithm |
| `{choice: [32, 64]}` | one of these |
| `{one_of: {sgd: ..., adamw: ...}}` | one of several sections, each with holes of its own |

`default:` beside a hole is what trial 0 takes; without it the first choice or branch, or the middle
of the range (the geometric one of `log`). Branches nest.

## Beside the sections

| | |
|---|---|
| `forbid: [{model: resnet, train.batch_size: 256}]` | combinations that are never trained |
| `limits:` | configurations above them are never trained |
| `search.start_from: [{train.batch_size: 256}]` | points tried right after the defaults |
| `search.start_from: runs/old` | the best of an earlier run, as far as they fit this space |

Any value can be set from the command line: `fer-ray tune FILE --set train.epochs=9`.
"""


def space_page(schema: dict[str, Any]) -> str:
    """Every section of the schema, in its order."""
    parts = [MADE, SPACE_INTRODUCTION.rstrip()]
    own = {"version", "name", "forbid"}
    for name, field in schema["properties"].items():
        if name not in own:
            parts += sections(schema, name, field)
    return "\n\n".join(parts) + "\n"


def sections(schema: dict[str, Any], address: str, field: dict[str, Any]) -> Iterator[str]:
    """A section's heading and table, then those of the sections within it."""
    found = section_of(schema, field)
    if found is None:
        return
    inner = {name: f for name, f in found["properties"].items() if section_of(schema, f)}
    one_of = {"one_of", "default"} if "one_of" in found["properties"] else set()
    plain = {n: f for n, f in found["properties"].items() if n not in {*inner, *one_of}}
    description = " ".join(found.get("description", "").split())
    yield f"## `{address}`\n\n{description}".rstrip()
    if one_of:
        yield f"One of {', '.join(f'`{name}`' for name in inner)}."
    if plain:
        rows = [row_of(name, f) for name, f in plain.items()]
        yield "\n".join(["| field | value | default | |", "|---|---|---|---|", *rows])
    for name, f in inner.items():
        yield from sections(schema, f"{address}.{name}", f)


def section_of(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any] | None:
    """The definition that a field refers to, if it is a section."""
    for option in [field, *field.get("anyOf", []), *field.get("allOf", [])]:
        name = option.get("$ref", "").rpartition("/")[2]
        if name and not name.startswith("hole_"):
            found: dict[str, Any] = schema["$defs"][name]
            if "properties" in found:
                return found
    return None


def row_of(name: str, field: dict[str, Any]) -> str:
    description = " ".join(field.get("description", "").split()).replace("|", "\\|")
    searched = "*searched.* " if "hole_" in str(field) else ""
    default = f"`{shown(field['default'])}`" if "default" in field else "required"
    return f"| `{name}` | {values_of(field)} | {default} | {searched}{description} |"


def values_of(field: dict[str, Any]) -> str:
    """What a field may be, in words."""
    if "anyOf" in field:
        options = [o for o in field["anyOf"] if "hole_" not in str(o.get("$ref", ""))]
        return " or ".join(dict.fromkeys(values_of(option) for option in options))
    if "const" in field:
        return f"`{shown(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{shown(value)}`" for value in field["enum"])
    kind = field.get("type")
    if kind in ("integer", "number"):
        return f"{'whole number' if kind == 'integer' else 'number'}{bounds_of(field)}"
    if kind == "array":
        items = field.get("items", {})
        return f"list of {values_of(items)}" if items else "list"
    names = {"string": "text", "boolean": "`true`, `false`", "null": "`null`", "object": "mapping"}
    return names.get(str(kind), str(kind or "value"))


def bounds_of(field: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    found = [f"{word} {field[key]:g}" for key, word in words.items() if key in field]
    return f", {', '.join(found)}" if found else ""


def shown(value: Any) -> str:
    """A value as one would write it in YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return text.removesuffix("...").strip()


# --- the command line -----------------------------------------------------------------------------

CLI_INTRODUCTION = """\
# The command line

Results go to stdout, talk to stderr. `fer-ray COMMAND --help` says the same in a terminal.

| exit code | |
|---|---|
| 0 | done |
| 1 | a fault of ours, or of the machine |
| 2 | the input is wrong: value, rule and remedy are named |
| 3 | nothing succeeded: no trial, no image |
| 4 | work is left undone; the line that goes on is printed |
| 130 | Ctrl-C, or SIGTERM |
"""


def cli_page() -> str:
    """Every command, in the order of `fer-ray --help`."""
    parts = [MADE, CLI_INTRODUCTION.rstrip()]
    group: Any = typer.main.get_command(app)
    for command in commands(group):
        parts += described(*command)
    return "\n\n".join(parts) + "\n"


def commands(group: Any, prefix: str = "fer-ray") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        elif not command.hidden:
            yield f"{prefix} {name}", command


def described(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    words = [name, *(p.metavar or p.name.upper() for p in arguments)]
    usage = " ".join([*words, *(["[OPTIONS]"] if options else [])])
    yield f"## `{name}`\n\n```\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}"
    rows = []
    for parameter in [*arguments, *options]:
        names, text = parameter.get_help_record(context)
        if parameter in arguments:
            names = parameter.metavar or parameter.name.upper()
        rows.append(f"| `{cell(names)}` | {cell(text)} |")
    if rows:
        yield "\n".join(["| | |", "|---|---|", *rows])


def cell(text: str) -> str:
    """Of a Markdown table, with the names that this page's readers know for Typer's types."""
    for typed, told in {"<str>": "TEXT", "<int>": "N", "<float>": "X", "<path>": "PATH"}.items():
        text = text.replace(typed, told)
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


# --- both -----------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """What each page should say."""
    return {
        DOCS / "search-space.md": space_page(space_schema()),
        DOCS / "cli.md": cli_page(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
        print(
            f"{path.relative_to(DOCS.parent)}: {'is stale; make reference' if check else 'written'}"
        )
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
