"""The two pages: one for people at `/`, one of the API at `/docs`. Both work without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from fastapi import FastAPI, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from fer_ray.serve import documents

_HTML = "text/html; charset=utf-8"


def add_page(app: FastAPI, notice: str, *, wants_key: bool, finds_faces: bool = False) -> None:
    """Add `GET /`.

    Args:
        app: to which.
        notice: what this is and is not; plain text.
        wants_key: show a field for the API key.
        finds_faces: offer to find the faces in photos.
    """
    body = _rendered("page.html", notice=notice, wants_key=wants_key, finds_faces=finds_faces)
    headers = _page_headers(body)

    @app.get("/", **documents.route(None, (500,), media_type="text/html", needs_key=False))
    async def page(request: Request) -> Response:
        """The page for people: drop, paste, choose or photograph faces."""
        return Response(body, headers=headers)


def docs_page(openapi: dict[str, Any]) -> Response:
    """The OpenAPI document for people to read."""
    body = _rendered("docs.html", openapi=openapi)
    return Response(body, headers=_page_headers(body))


def _rendered(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("fer_ray.serve"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment.get_template(template).render(**values)


def _page_headers(body: str) -> dict[str, str]:
    """A policy that lets run what the page was written with, and nothing else."""
    scripts = _hashes(body, "script")
    styles = _hashes(body, "style")
    policy = {
        "default-src": "'none'",
        "script-src": scripts or "'none'",
        "style-src": styles,
        "img-src": "blob: data:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-type": _HTML,
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "permissions-policy": "camera=(self)",
    }


def _hashes(body: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", body, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
