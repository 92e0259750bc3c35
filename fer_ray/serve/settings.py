"""What a replica is told when it starts: `args` of the application in Serve's YAML."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fer_ray.serve.limits import Limits

DEFAULT_NOTICE = (
    "This reads what a face shows, not what a person feels. It was trained on photos labelled by "
    "people who agree with each other on about two of three. Do not base decisions about a person "
    "on it; laws restrict such use, at work and in schools above all."
)


class Socket(BaseModel):
    """The address of a replica that listens itself.

    Attributes:
        host: numeric address.
        tls_certificate: PEM file with the chain; None is plain HTTP.
        tls_key: PEM file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    tls_certificate: Path | None = None
    tls_key: Path | None = None


class Settings(BaseModel):
    """What a replica is made of. Its bundle is not here: that may change while it runs.

    Attributes:
        precision: `auto`, `fp32` or `bf16`.
        runtime: `auto`, `torch`, `openvino` or `onnxruntime`; each replica chooses for itself.
        num_threads: of torch and of decoding.
        limits: of the replica.
        faces: detector that requests may ask for: `none`, `haar` or `yunet:PATH`.
        api_keys: file of key hashes; None lets everyone in.
        guards_operations: whether `/metrics`, `/docs` and `/openapi.json` want a key too.
        has_page: whether `GET /` is the page for people.
        notice: what that page says it is and is not.
        access_log: file, one JSON line a request; None is no log.
        socket: where the replica listens itself (direct ingress); None behind a proxy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: str = "auto"
    runtime: str = "auto"
    num_threads: int = Field(default=1, ge=1)
    limits: Limits = Limits()
    faces: str = "none"
    api_keys: Path | None = None
    guards_operations: bool = False
    has_page: bool = True
    notice: str = DEFAULT_NOTICE
    access_log: Path | None = None
    socket: Socket | None = None

    @field_validator("faces")
    @classmethod
    def _find_its_file_from_anywhere(cls, faces: str) -> str:
        """A replica has another working directory than its user."""
        kind, _, path = faces.partition(":")
        return f"{kind}:{Path(path).absolute()}" if path else faces
