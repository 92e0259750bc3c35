"""Addresses in a list: what a web server may answer, and what becomes of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UnfinishedError
from tests.scoring import assert_same_rows, image_bytes, rows_of, scored

SECRET = Path(__file__).resolve()
"""A file that a redirect points to: it must never be read."""


class Answers(BaseHTTPRequestHandler):
    """`/N.png` is a face; a number stands for itself; the rest is trouble."""

    asked: Counter[str]

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1  # type: ignore[attr-defined]
        if name.endswith(".png"):
            self._send(200, image_bytes(int(name.removesuffix(".png"))))
        elif name.isdigit():
            self._send(int(name), b"")
        elif name == "twice-503" and self.server.asked[name] > 2:  # type: ignore[attr-defined]
            self._send(200, image_bytes(3))
        elif name == "twice-503":
            self._send(503, b"", **{"Retry-After": "0"})
        elif name == "moved":
            self._send(302, b"", Location="/4.png")
        elif name == "to-a-file":
            self._send(302, b"", Location=SECRET.as_uri())
        elif name == "in-circles":
            self._send(302, b"", Location="/in-circles")
        else:  # breaks off
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(image_bytes(5)[:50])

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        running.asked = Counter()  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def listed(server: ThreadingHTTPServer, place: Path, *names: str) -> str:
    place.mkdir(exist_ok=True)
    addresses = [f"http://127.0.0.1:{server.server_address[1]}/{name}" for name in names]
    (place / "list.txt").write_text("\n".join(addresses) + "\n")
    return str(place / "list.txt")


def test_faces_from_a_web_server_answer_as_from_the_disk(
    server: ThreadingHTTPServer, predictor: Predictor, tmp_path: Path
) -> None:
    source = listed(server, tmp_path, *(f"{number}.png" for number in range(11)), "moved")
    report = scored(source, tmp_path / "web", predictor)
    assert (report.rows, report.errors) == (12, {})
    (tmp_path / "faces").mkdir()
    for number in range(11):
        (tmp_path / "faces" / f"{number}.png").write_bytes(image_bytes(number))
    scored(tmp_path / "faces", tmp_path / "disk", predictor)

    def by_name(out: str) -> Any:
        table = rows_of(tmp_path / out).to_pandas()
        table["path"] = table["path"].str.rpartition("/")[2]
        return table[table["path"] != "moved"]

    assert_same_rows(*(pa.Table.from_pandas(by_name(out)) for out in ("web", "disk")))


def test_what_a_server_refuses_is_a_row_and_what_passes_is_tried_again(
    server: ThreadingHTTPServer, predictor: Predictor, tmp_path: Path
) -> None:
    source = listed(server, tmp_path, "1.png", "404", "410", "403", "401", "twice-503")
    scored(source, tmp_path / "out", predictor, give_up_after_s=20)
    rows = rows_of(tmp_path / "out").to_pandas().set_index("path")
    found = {path.rpartition("/")[2]: row for path, row in rows.iterrows()}
    assert {name: row.error_type for name, row in found.items() if row.status == "error"} == {
        "404": "missing",
        "410": "missing",
        "403": "unreadable",
        "401": "unreadable",
    }
    assert found["twice-503"].status == "ok"
    assert server.asked["twice-503"] == 3  # type: ignore[attr-defined]
    assert server.asked["403"] == 1, "a refusal is not asked again"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["500", "429", "breaks-off"])
def test_what_does_not_pass_leaves_the_shard_unfinished(
    server: ThreadingHTTPServer, predictor: Predictor, tmp_path: Path, name: str
) -> None:
    source = listed(server, tmp_path, "1.png", name)
    with pytest.raises(UnfinishedError):
        scored(source, tmp_path / "out", predictor)
    assert server.asked[name] >= 2  # type: ignore[attr-defined]
    assert not list((tmp_path / "out").glob("part-*.parquet"))


@pytest.mark.parametrize("name", ["to-a-file", "in-circles"])
def test_a_redirect_leads_nowhere_else(
    server: ThreadingHTTPServer, predictor: Predictor, tmp_path: Path, name: str
) -> None:
    source = listed(server, tmp_path, "1.png", name)
    report = scored(source, tmp_path / "out", predictor)
    assert report.errors == {"unreadable": 1}
