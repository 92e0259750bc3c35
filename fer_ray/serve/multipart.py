"""Files of a multipart form, in memory: an uploaded image never touches a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fer_ray.serve.problems import RefusedError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


def form_files(content_type: str, body: bytes, field: str, max_files: int) -> list[bytes]:
    """The contents of every part, all of which carry the name `field`.

    Args:
        content_type: with the boundary.
        body: whole; its size is bounded already.
        field: the only name a part may have.
        max_files: parts.

    Raises:
        RefusedError: `invalid-multipart` or `too-many-images`.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusedError("invalid-multipart", "the Content-Type has no boundary")
    parts = _Parts(field, max_files)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RefusedError("invalid-multipart", str(error)[:200]) from error
    if not parts.is_complete:
        raise RefusedError("invalid-multipart", "the form ends before its last boundary")
    if not parts.files:
        raise RefusedError("invalid-multipart", f"the form has no field {field!r}")
    return parts.files


class _Parts:
    """What the parser calls while it walks the body."""

    def __init__(self, field: str, max_files: int) -> None:
        self.files: list[bytes] = []
        self.is_complete = False
        self._field = field
        self._max_files = max_files
        self._chunks: list[bytes] = []
        self._header = b""
        self._value = b""
        self._disposition = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_name,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _begin(self) -> None:
        if len(self.files) >= self._max_files:
            raise RefusedError("too-many-images", f"at most {self._max_files} are taken at once")
        self._chunks = []
        self._disposition = b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _check_name(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"")
        if name != self._field.encode():
            found = name[:100].decode("utf-8", "replace")
            raise RefusedError(
                "invalid-multipart", f"a part is named {found!r}, but {self._field!r} is wanted"
            )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        self.files.append(b"".join(self._chunks))

    def _complete(self) -> None:
        self.is_complete = True
