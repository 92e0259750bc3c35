"""What every page shares: the template engine, and how a page may replace an older one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from fer_ray import __version__
from fer_ray.errors import OutputExistsError, UserError
from fer_ray.store import require_on_disk, write_atomic


def mark_of(command: str) -> str:
    """In the first lines of a command's page: such a file may be replaced by a newer one."""
    return f"<!-- fer-ray {command} -->"


def render(
    template: str,
    command: str,
    *,
    filters: Mapping[str, Callable[..., str]] | None = None,
    **values: Any,
) -> str:
    """Fill a template that extends `base.html`.

    Every value is text: Jinja escapes it, and the page's own Content-Security-Policy lets nothing
    run or load.

    Args:
        template: its file in `templates/`.
        command: that writes the page; see `mark_of`.
        filters: of this template, beside Jinja's own.
        values: by the names that the template knows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fer_ray.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    text = environment.get_template(template).render(
        mark=mark_of(command), version=__version__, **values
    )
    # A name with half a surrogate pair (bytes that were no UTF-8) cannot be written as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def require_replaceable(path: Path, command: str) -> None:
    """Refuse to write over anything but an earlier page of the same command.

    Raises:
        OutputExistsError: something else is there.
        UserError: no path, but an address in object storage.
    """
    require_on_disk(path)
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if mark_of(command).encode() in file.read(200):
                return
    raise OutputExistsError(
        f"{path} already exists and is not a page of `fer-ray {command}`",
        "Choose another --html, or delete it first.",
    )


def write_page(path: Path, text: str, command: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        OutputExistsError: another file is there.
        UserError: it cannot be written.
    """
    require_replaceable(path, command)
    try:
        write_atomic(path, text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
