"""A small client of the HTTP API, for programs: typed answers, and retries that heed Retry-After.

Standard library only, so that it can be copied into a project without torch or Ray.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

RETRIED = (429, 502, 503, 504)
MAX_WAIT_S = 30.0
"""Longest pause before a retry, whatever the server asks for."""


class ServerRefusedError(Exception):
    """The server answered with a problem.

    Args:
        status: of HTTP.
        problem: the RFC 9457 document; empty where something else answered.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    @property
    def name(self) -> str:
        """The problem's stable name, such as `undecodable-image`."""
        return str(self.problem.get("type", "")).rpartition("/")[2]

    def __str__(self) -> str:
        detail = self.problem.get("detail", "no problem document")
        return f"{self.status} {self.problem.get('title', '')}: {detail}"


@dataclass(frozen=True)
class Answer:
    """One image's answer.

    Attributes:
        scores: calibrated probability by label, best first.
        uncertain: the best score lies below the bundle's threshold.
        model_id: of the bundle that answered.
    """

    scores: dict[str, float]
    uncertain: bool
    model_id: str

    @property
    def label(self) -> str:
        """The best class."""
        return next(iter(self.scores))


@dataclass(frozen=True)
class FoundFace:
    """One face of a photo.

    Attributes:
        x, y, w, h: its box, in pixels of the photo as it is displayed.
        detector_score: higher is surer; no probability.
        answer: of this face alone.
    """

    x: float
    y: float
    w: float
    h: float
    detector_score: float
    answer: Answer


@dataclass(frozen=True)
class Refusal:
    """One image of a batch that was refused.

    Attributes:
        problem: the RFC 9457 document.
    """

    problem: dict[str, Any]


class Client:
    """One connection to an endpoint, kept open; for one thread.

    A request that found the server busy (429, 503) or the connection broken is sent again: the API
    changes nothing, so twice is as good as once.

    Args:
        url: such as `http://127.0.0.1:8000`.
        api_key: None where the endpoint wants none.
        timeout_s: of connecting and of each read.
        attempts: at most, the first included.
        tls: None trusts what this machine trusts.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        attempts: int = 5,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"an address such as http://127.0.0.1:8000 is wanted, but got {url!r}")
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, but got {attempts}")
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = tls or ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=timeout_s
            )
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._attempts = attempts
        self._sleep = sleep

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()

    def predict(self, image: bytes | str | Path, *, top_k: int | None = None) -> Answer:
        """Classify one image.

        Args:
            image: the file's bytes, or its path on this machine.
            top_k: best classes; None is all.

        Raises:
            ServerRefusedError: the last attempt was refused.
            OSError: the server cannot be reached; a file cannot be read.
        """
        query = f"?top_k={top_k}" if top_k is not None else ""
        headers = {"Content-Type": "application/octet-stream"}
        document = self._call("POST", f"/v1/predict{query}", _bytes_of(image), headers)
        return _answer(document, document["model"]["id"])

    def find_faces(self, image: bytes | str | Path, *, top_k: int | None = None) -> list[FoundFace]:
        """Find the faces in a photo and classify each; the server must offer it.

        Args:
            image: the file's bytes, or its path on this machine.
            top_k: best classes; None is all.

        Returns:
            from left to right; empty where there is none. The server's limit of faces a photo
            leaves out the smallest.

        Raises:
            ServerRefusedError: the last attempt was refused.
            OSError: the server cannot be reached; a file cannot be read.
        """
        query = "?faces=true" + (f"&top_k={top_k}" if top_k is not None else "")
        headers = {"Content-Type": "application/octet-stream"}
        document = self._call("POST", f"/v1/predict{query}", _bytes_of(image), headers)
        model_id = document["model"]["id"]
        return [
            FoundFace(**face["box"], detector_score=face["detector_score"],
                      answer=_answer(face, model_id))
            for face in document["faces"]
        ]  # fmt: skip

    def predict_batch(
        self, images: Sequence[bytes | str | Path], *, top_k: int | None = None
    ) -> list[Answer | Refusal]:
        """Classify several images in one request: the fastest way for many.

        Returns:
            an entry an image, in order.

        Raises:
            ServerRefusedError: the last attempt was refused as a whole.
            OSError: the server cannot be reached; a file cannot be read.
        """
        boundary = uuid.uuid4().hex
        parts = [
            b'--%b\r\nContent-Disposition: form-data; name="files"; filename="image"\r\n\r\n%b\r\n'
            % (boundary.encode(), _bytes_of(image))
            for image in images
        ]
        body = b"".join(parts) + b"--%b--\r\n" % boundary.encode()
        query = f"?top_k={top_k}" if top_k is not None else ""
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        document = self._call("POST", f"/v1/predict/batch{query}", body, headers)
        model_id = document["model"]["id"]
        return [
            Refusal(result["problem"]) if "problem" in result else _answer(result, model_id)
            for result in document["results"]
        ]

    def models(self) -> list[dict[str, Any]]:
        """Cards of what is served."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/models", None, {})["models"]
        return found

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        for attempt in range(1, self._attempts + 1):
            pause_s = min(2.0**attempt / 10, MAX_WAIT_S) * random.uniform(0.5, 1.0)
            try:
                self._connection.request(
                    method, self._prefix + path, body, {**self._headers, **headers}
                )
                response = self._connection.getresponse()
                text = response.read()
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt == self._attempts:
                    raise
                self._sleep(pause_s)
                continue
            if response.status == 200:
                return json.loads(text)
            problem = _problem(text)
            # A 500 that is no problem of ours: Serve's proxy, whose replica died on the way.
            may_pass = response.status in RETRIED or (response.status == 500 and not problem)
            if not may_pass or attempt == self._attempts:
                raise ServerRefusedError(response.status, problem)
            self._sleep(_asked_pause_s(response.getheader("Retry-After"), pause_s))
        raise AssertionError("the loop above returns or raises")


def _bytes_of(image: bytes | str | Path) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _answer(document: dict[str, Any], model_id: str) -> Answer:
    scores = {entry["label"]: entry["score"] for entry in document["predictions"]}
    return Answer(scores, document["uncertain"], model_id)


def _problem(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _asked_pause_s(retry_after: str | None, otherwise_s: float) -> float:
    """What the server asks for, spread a little, so that its clients do not come back as one."""
    if retry_after is None or not retry_after.isdecimal():
        return otherwise_s
    return min(float(retry_after), MAX_WAIT_S) + random.uniform(0.0, 0.25)
