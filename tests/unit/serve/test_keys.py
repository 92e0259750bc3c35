"""API keys: the file, who is let in, and what the log tells."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from fer_ray.errors import UserError
from fer_ray.serve.access_log import AccessLog
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Slot
from fer_ray.serve.keys import KeyBook, add_key, read_keys
from fer_ray.serve.limits import Limits
from tests.serving import assert_envelope, assert_problem, call

PNG = {"content-type": "image/png"}


def test_the_file_keeps_a_salted_hash_and_not_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    alice, bob = add_key(path, "alice"), add_key(path, "bob")
    text = path.read_text()
    assert alice.startswith("fer_")
    assert alice not in text
    assert alice[4:] not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    salts = {key.salt for key in read_keys(path)}
    assert len(salts) == 2
    book = KeyBook(path)
    assert book.name_of(alice) == "alice"
    assert book.name_of(bob) == "bob"
    assert book.name_of(alice[:-1]) is None
    assert book.name_of("") is None
    assert book.name_of("\udcff") is None


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add_key(path, "alice")
    with pytest.raises(UserError, match="has a key named 'alice' already"):
        add_key(path, "alice")
    with pytest.raises(UserError, match="a key's name is"):
        add_key(path, "a:b")


def test_a_wrong_line_is_named_but_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# keys\nfer_a-pasted-key\n")
    with pytest.raises(UserError, match="keys:2 is not NAME:sha256") as caught:
        KeyBook(path)
    assert "pasted" not in str(caught.value)
    path.write_text("# none\n")
    with pytest.raises(UserError, match="has no key"):
        KeyBook(path)
    with pytest.raises(UserError, match="cannot be read"):
        KeyBook(tmp_path / "nowhere")


def test_an_edited_file_counts_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    now = [0.0]
    alice = add_key(path, "alice")
    book = KeyBook(path, clock=lambda: now[0])
    bob = add_key(path, "bob")
    assert book.name_of(bob) is None  # looked at once a second
    now[0] = 2.0
    assert book.name_of(bob) == "bob"
    path.write_text("broken")
    os.utime(path, ns=(1, 1))
    now[0] = 4.0
    assert book.name_of(alice) == "alice"
    path.write_text("# nobody\n")
    now[0] = 6.0
    assert book.name_of(alice) is None


def test_who_is_let_in(slot: Slot, face: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "alice")
    app = build_app(slot, Surroundings(keys=KeyBook(path), guards_operations=True))
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        response = call(app, "POST", "/v1/predict", content=face, headers={**PNG, **headers})
        assert response.status_code == 200
    refused: list[dict[str, str]] = [
        {},
        {"authorization": f"Basic {key}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"x-api-key": ""},
        {"x-api-key": key + "x"},
    ]
    for headers in refused:
        response = call(app, "POST", "/v1/predict", content=face, headers={**PNG, **headers})
        assert_problem(response, "unauthorized")
        assert_envelope(response)
        assert response.headers["www-authenticate"] == "Bearer"
        assert key not in response.text
    guarded = [
        ("POST", "/"), ("POST", "/v1/predict/batch"), ("GET", "/v1/models"), ("GET", "/v2"),
        ("GET", "/v2/models/tiny"), ("GET", "/v2/models/tiny/ready"),
        ("POST", "/v2/models/tiny/infer"), ("GET", "/metrics"), ("GET", "/docs"),
        ("GET", "/openapi.json"),
    ]  # fmt: skip
    for method, route in guarded:
        assert call(app, method, route).status_code == 401, route
        assert call(app, method, route, headers={"x-api-key": key}).status_code != 401, route
    for route in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert call(app, "GET", route).status_code == 200, route


def test_on_loopback_operations_need_no_key(slot: Slot, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add_key(path, "alice")
    app = build_app(slot, Surroundings(keys=KeyBook(path)))
    for route in ("/metrics", "/docs", "/openapi.json"):
        assert call(app, "GET", route).status_code == 200


def test_one_key_cannot_take_everything(slot: Slot, face: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "alice")
    app = build_app(slot, Surroundings(Limits(key_requests=0), KeyBook(path)))
    headers = {**PNG, "x-api-key": key}
    response = call(app, "POST", "/v1/predict", content=face, headers=headers)
    assert "'alice'" in assert_problem(response, "too-many-requests")["detail"]
    assert response.headers["retry-after"] == "1"


def test_the_access_log_names_the_key_and_shows_no_image(
    slot: Slot, face: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "alice")
    log = AccessLog(tmp_path / "access.jsonl")
    app = build_app(slot, Surroundings(keys=KeyBook(path), access_log=log))
    headers = {**PNG, "x-api-key": key, "x-request-id": "one"}
    call(app, "POST", "/v1/predict", content=face, headers=headers)
    call(app, "POST", "/v1/predict", content=face, headers=PNG)
    log.close()
    text = (tmp_path / "access.jsonl").read_text()
    first, second = map(json.loads, text.splitlines())
    assert first["key"] == "alice"
    assert first["request_id"] == "one"
    assert first["status"] == 200
    assert first["body_bytes"] == len(face)
    assert first["images"] == 1
    assert second["key"] is None
    assert second["outcome"] == "unauthorized"
    assert key not in text
    assert len(text) < 1000


def test_the_access_log_survives_rotation(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    log.add({"number": 1})
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    path.rename(tmp_path / "access.jsonl.1")
    log.add({"number": 2})
    log.close()
    assert json.loads(path.read_text()) == {"number": 2}
