"""Pretrained weights: read without running code, refused when they are not what they should be."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fer_ray.errors import UserError
from fer_ray.models import vision
from fer_ray.models import weights as module
from fer_ray.models.weights import IMAGENET_SHA256, named_state

STATE = {"conv1.weight": torch.arange(12.0).reshape(3, 4), "bn1.bias": torch.ones(2)}


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self.proof,)


def same(state: dict[str, torch.Tensor] | None) -> bool:
    assert state is not None
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


def test_none_is_asked_for_by_name() -> None:
    assert named_state("none", "resnet18") is None


def test_both_file_formats_are_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(named_state(str(tmp_path / "a.pth"), "resnet18"))
    assert same(named_state(str(tmp_path / "a.safetensors"), "resnet18"))


def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    torch.save({"conv1.weight": Hostile(proof)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="it holds more than tensors"):
        named_state(str(tmp_path / "a.pth"), "resnet18")
    assert not proof.exists()


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), {"epoch": 3, "conv1.weight": torch.zeros(1)}, [torch.zeros(1)]],
    ids=["tensor", "with numbers", "list"],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not a state dict of tensors"):
        named_state(str(tmp_path / "a.pth"), "resnet18")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("data", [b"", b"words, not weights", b"PK\x03\x04" + b"\0" * 50])
def test_a_wrong_file_is_a_user_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=r"cannot read the weights|is refused"):
        named_state(str(tmp_path / name), "resnet18")


def test_a_truncated_file_is_a_user_error(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError):
            named_state(str(path), "resnet18")


def test_a_missing_file_names_the_choices() -> None:
    with pytest.raises(UserError, match="neither imagenet, none, a file, a bundle nor a run"):
        named_state("/nowhere/a.pth", "resnet18")


class Answer(io.BytesIO):
    """What `urlopen` gives."""


def serve(monkeypatch: pytest.MonkeyPatch, data: bytes) -> list[str]:
    """Answer every download with `data`; gives the list of what was asked for."""
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> Answer:
        assert timeout > 0
        asked.append(url)
        return Answer(data)

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    return asked


def saved_state() -> bytes:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    return buffer.getvalue()


def test_imagenet_weights_are_fetched_once_and_hashed_at_every_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = saved_state()
    monkeypatch.setitem(IMAGENET_SHA256, "resnet18", hashlib.sha256(data).hexdigest())
    asked = serve(monkeypatch, data)
    assert same(named_state("imagenet", "resnet18"))
    assert same(named_state("imagenet", "resnet18"))
    assert asked == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]
    (path,) = (tmp_path / "fer-ray" / "weights").iterdir()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"has sha256 [0-9a-f]{64}, but ImageNet's weights have"):
        named_state("imagenet", "resnet18")


def test_a_download_with_another_sum_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    serve(monkeypatch, saved_state())
    with pytest.raises(
        UserError, match=f"but ImageNet's weights have {IMAGENET_SHA256['resnet50']}"
    ):
        named_state("imagenet", "resnet50")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("arch", IMAGENET_SHA256)
def test_the_sums_begin_as_torchvision_publishes_them(arch: str) -> None:
    url = vision.models().get_model_weights(arch).IMAGENET1K_V1.url
    published = url.rsplit("-", 1)[-1].removesuffix(".pth")
    assert len(IMAGENET_SHA256[arch]) == 64
    assert IMAGENET_SHA256[arch].startswith(published)


def test_a_failed_download_tells_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    with pytest.raises(UserError) as caught:
        named_state("imagenet", "resnet18")
    assert "cannot be fetched from https://download.pytorch.org/" in caught.value.message
    assert str(tmp_path / "fer-ray" / "weights") in str(caught.value.remedy)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
