"""What every HTML page of ours must be."""

from __future__ import annotations

from html.parser import HTMLParser

EVIL = '<img src=x onerror="alert(1)">'
EVIL_NAMES = (
    EVIL,
    "</style><script>alert(2)</script>",
    "{{ 7 * 7 }}",
    "happy & sad",
    "'\"><b>",
    "javascript:alert(3)",
    "neutral",
)
"""Seven class names made of markup."""

_VOID = {"meta", "img", "link", "br", "input", "hr"}


class Page(HTMLParser):
    """Elements and text of a page; every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words += data


def assert_offline(text: str) -> None:
    """Nothing is fetched, nothing runs, and the page says so to the browser."""
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert all(str(value).startswith("data:image/png;base64,") for value in addresses)
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert "url(" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
