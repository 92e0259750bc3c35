"""Bad weather for object storage: moto's S3 server, and a proxy before it that delays and refuses.

The proxy speaks HTTP/1.1 on loopback, one thread a connection. It delays each GET of an object,
answers a share of requests with 503 SlowDown, and for a while every one with ExpiredToken.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from moto.server import ThreadedMotoServer

from tests.scoring import image_bytes

BUCKET = "faces"
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


@dataclass
class Weather:
    """What the proxy does; may be changed while it runs.

    Attributes:
        delay_s: before each GET is passed on.
        slow_down: share of requests that are answered with 503.
        expired_until: `time.monotonic()` until which credentials are refused.
        seen: answers given, by status.
    """

    delay_s: float = 0.0
    slow_down: float = 0.0
    expired_until: float = 0.0
    seen: Counter[int] = field(default_factory=Counter)
    draw: random.Random = field(default_factory=lambda: random.Random(1))


def _error(code: str) -> bytes:
    return (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    )


@contextlib.contextmanager
def proxy(upstream: tuple[str, int], weather: Weather) -> Iterator[int]:
    """Run the proxy; gives its port."""
    local = threading.local()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            if time.monotonic() < weather.expired_until:
                return self._answer(400, _error("ExpiredToken"), {})
            if weather.draw.random() < weather.slow_down:
                return self._answer(503, _error("SlowDown"), {})
            if self.command == "GET":
                time.sleep(weather.delay_s)
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection(*upstream, timeout=30)
            headers = dict(self.headers.items())
            local.connection.request(self.command, self.path, body, headers)
            answer = local.connection.getresponse()
            data = answer.read()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
            length_told = answer.getheader("Content-Length") if self.command == "HEAD" else None
            return self._answer(answer.status, data, kept, length_told)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815

        def _answer(
            self, status: int, data: bytes, headers: dict[str, str], length: str | None = None
        ) -> None:
            weather.seen[status] += 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def address(port: int, prefix: str = "") -> str:
    """The bucket behind a port, as a source."""
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    return f"s3://key:secret@{BUCKET}/{prefix}?{options}"


@contextlib.contextmanager
def bucket_of_faces(count: int) -> Iterator[tuple[str, int]]:
    """moto's S3 with a bucket of `count` faces, every 150th no image, and a file of words."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        for number in range(count):
            data = image_bytes(number, "JPEG") if number % 150 else b"no image"
            client.put_object(Bucket=BUCKET, Key=f"{number % 3}/a b/{number:04d}.jpg", Body=data)
        client.put_object(Bucket=BUCKET, Key="notes.md", Body=b"words")
        yield host, port
    finally:
        moto.stop()
