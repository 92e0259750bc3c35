"""Bundles as an attacker would write them: sealed again, so that only the contents are judged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fer_ray.bundle import manifest
from fer_ray.config.sections.model import ModelConfig
from fer_ray.models.build import build_model

Attack = Callable[[Path], None]
FIRST = "blocks.0.body.0.weight"
"""A tensor of `tests.bundles.tiny_bundle`: F32 [4, 1, 3, 3]."""


def seal(path: Path) -> None:
    """Make the manifest agree with the files, whatever they are and however large."""
    digests = {}
    for name in manifest.FILES:
        regular = (path / name).is_file()
        data = (path / name).read_bytes() if regular else b""
        digests[name] = hashlib.sha256(data).hexdigest()
    write_manifest(path, {"files": digests, "bundle_id": manifest.bundle_id(digests)})


def write_manifest(path: Path, changes: dict[str, Any]) -> None:
    """Write a manifest whose own sha256 holds; a change to None takes a key away."""
    body = json.loads((path / manifest.MANIFEST).read_text()) | changes
    body = {k: v for k, v in body.items() if v is not None and k != "sha256"}
    body["sha256"] = manifest._canonical_digest(body)
    (path / manifest.MANIFEST).write_text(json.dumps(body))


def edited(name: str, change: Callable[[Any], object]) -> Attack:
    """Change one JSON document and seal."""

    def attack(path: Path) -> None:
        document = json.loads((path / name).read_text())
        change(document)
        (path / name).write_text(json.dumps(document))
        seal(path)

    return attack


def replaced(name: str, data: bytes) -> Attack:
    """Replace a file's bytes and seal."""

    def attack(path: Path) -> None:
        (path / name).write_bytes(data)
        seal(path)

    return attack


def sealed_manifest(**changes: Any) -> Attack:
    return lambda path: write_manifest(path, changes)


def listed(change: Callable[[dict[str, Any]], object]) -> Attack:
    """Change the manifest's list of files; its own sha256 holds."""

    def attack(path: Path) -> None:
        files = json.loads((path / manifest.MANIFEST).read_text())["files"]
        change(files)
        write_manifest(path, {"files": files})

    return attack


def instead(name: str, make: Callable[[Path], object]) -> Attack:
    """Put something else where a file was; the manifest keeps the old sha256."""

    def attack(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return attack


def linked_outside(path: Path) -> None:
    """The very same bytes, but outside: the hash holds."""
    outside = path.parent / "outside.json"
    outside.write_bytes((path / "config.json").read_bytes())
    (path / "config.json").unlink()
    (path / "config.json").symlink_to(outside)


def swapped(path: Path) -> None:
    one, two = path / "metrics.json", path / "lineage.json"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def config(change: Callable[[Any], object]) -> Attack:
    return edited("config.json", change)


def cnn(**fields: Any) -> Attack:
    return config(lambda d: d["fer_ray"]["model"]["cnn"].update(fields))


def labels(names: list[Any]) -> Attack:
    """Other labels, in every field that names them."""

    def change(document: dict[str, Any]) -> None:
        document.update(
            num_classes=len(names),
            label_names=names,
            id2label={str(i): name for i, name in enumerate(names)},
            label2id={str(name): i for i, name in enumerate(names)},
        )

    return config(change)


def recipe(**fields: Any) -> Attack:
    """Another preprocessing, in our fields alone."""
    return edited("preprocessor_config.json", lambda d: d["fer_ray"].update(fields))


def calibration(**fields: Any) -> Attack:
    return edited("calibration.json", lambda d: d.update(fields))


def raw_calibration(temperature: str) -> Attack:
    text = f'{{"coverage":1,"target_precision":0.9,"temperature":{temperature},"threshold":0.5}}'
    return replaced("calibration.json", text.encode())


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Attack:
    """Change the tensors of a file with the safetensors library, and seal."""

    def attack(path: Path) -> None:
        held = dict(load_file(path / name))
        change(held)
        save_file(held, path / name)
        seal(path)

    return attack


def header(change: Callable[[dict[str, Any]], object], data: bytes | None = None) -> Attack:
    """Change the header of the weights by hand, as no library would."""

    def attack(path: Path) -> None:
        file = path / manifest.WEIGHTS
        raw = file.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        document = json.loads(raw[8 : 8 + length])
        change(document)
        text = json.dumps(document).encode()
        rest = raw[8 + length :] if data is None else data
        file.write_bytes(len(text).to_bytes(8, "little") + text + rest)
        seal(path)

    return attack


def claimed_header(length: int) -> Attack:
    return replaced(manifest.WEIGHTS, length.to_bytes(8, "little") + b"{}" * 50)


def overlapping(document: dict[str, Any]) -> None:
    """Two tensors on the same bytes."""
    names = [name for name, entry in document.items() if entry["dtype"] == "F32"]
    one, two = (
        names[0],
        next(n for n in names[1:] if document[n]["shape"] != document[names[0]]["shape"]),
    )
    size = document[two]["data_offsets"][1] - document[two]["data_offsets"][0]
    start = document[one]["data_offsets"][0]
    document[two]["data_offsets"] = [start, start + size]


def large_activations(path: Path) -> None:
    """Few weights, but gigabytes between the layers."""
    ours = {"source_px": 256, "image_size_px": 256, "crop_px": 256}
    preprocessor = json.loads((path / "preprocessor_config.json").read_text())["fer_ray"]
    (path / "preprocessor_config.json").write_text(json.dumps({"fer_ray": preprocessor | ours}))
    document = json.loads((path / "config.json").read_text())
    document["input_size"] = [1, 256, 256]
    document["fer_ray"]["model"]["cnn"].update(channels=[8192, 8], stem_stride=1)
    for repeated in ("image_size", "pretrained_cfg"):
        del document[repeated]
    (path / "config.json").write_text(json.dumps(document))
    network = build_model(
        ModelConfig.model_validate(document["fer_ray"]["model"]),
        num_classes=7,
        in_channels=1,
        input_px=256,
    )
    save_file(network.state_dict(), path / manifest.WEIGHTS)
    seal(path)


HUGE = 2**40

ATTACKS: dict[str, tuple[Attack, str, str]] = {
    # name: (attack, the file that the refusal names, words of the rule)
    "format of the future": (sealed_manifest(format=2), "bundle.json", "has bundle format 2;"),
    "format true": (sealed_manifest(format=True), "bundle.json", "has bundle format True;"),
    "no format": (sealed_manifest(format=None), "bundle.json", "has bundle format None;"),
    "unknown kind": (sealed_manifest(kind="pickle"), "bundle.json", "kind must be 'ensemble'"),
    "unknown key": (sealed_manifest(code="x"), "bundle.json", "has the key 'code'"),
    "traversal": (
        listed(lambda d: d.update({"../../etc/passwd": "0" * 64})),
        "bundle.json",
        "must list exactly",
    ),
    "absolute name": (
        listed(lambda d: d.update({"/etc/passwd": "0" * 64})),
        "bundle.json",
        "must list exactly",
    ),
    "a file too few": (listed(lambda d: d.pop("golden.safetensors")), "bundle.json", "must list"),
    "digest no string": (
        listed(lambda d: d.update({"config.json": 7})),
        "bundle.json",
        "must be 64 hexadecimal digits",
    ),
    "another id": (sealed_manifest(bundle_id="0" * 64), "bundle.json", "not its own"),
    "huge manifest": (
        lambda path: (path / "bundle.json").write_text(" " * 100_000),
        "bundle.json",
        "at most 65,536 are read",
    ),
    # --- files ---
    "a pipe": (instead("config.json", os.mkfifo), "config.json", "is not a regular file"),
    "a pipe as manifest": (instead("bundle.json", os.mkfifo), "bundle.json", "not a regular file"),
    "a folder": (instead("metrics.json", os.mkdir), "metrics.json", "is not a regular file"),
    "a device": (
        instead("config.json", lambda place: place.symlink_to("/dev/zero")),
        "config.json",
        "leads out of the bundle",
    ),
    "a link to a secret": (
        instead("LICENSE-weights", lambda place: place.symlink_to("/etc/passwd")),
        "LICENSE-weights",
        "leads out of the bundle",
    ),
    "a link outside, same bytes": (linked_outside, "config.json", "leads out of the bundle"),
    "a link to itself": (
        instead("config.json", lambda place: place.symlink_to(place.name)),
        "config.json",
        "cannot be read",
    ),
    "swapped files": (swapped, "lineage.json", "was changed"),
    "a sparse giant": (
        lambda path: os.truncate(path / "model.safetensors", HUGE),
        "model.safetensors",
        "at most 1,073,741,824 are read",
    ),
    "a large config": (replaced("config.json", b" " * 300_000), "config.json", "at most 262,144"),
    # --- JSON ---
    "empty": (replaced("config.json", b""), "config.json", "is not valid JSON"),
    "deep": (
        replaced("lineage.json", b"[" * 100_000 + b"]" * 100_000),
        "lineage.json",
        "deeper than 32 levels",
    ),
    "many values": (
        replaced("lineage.json", b"[" + b"0," * 1_000_000 + b"0]"),
        "lineage.json",
        "more than 500,000 JSON values",
    ),
    "not UTF-8": (replaced("metrics.json", b'{"a": "\xff"}'), "metrics.json", "is not UTF-8"),
    "half a character": (
        replaced("metrics.json", b'{"a": "\\ud800"}'),
        "metrics.json",
        "half a character",
    ),
    "NaN": (raw_calibration("NaN"), "calibration.json", "NaN is no JSON number"),
    "infinity": (raw_calibration("-Infinity"), "calibration.json", "-Infinity is no JSON number"),
    "1e999": (raw_calibration("1e999"), "calibration.json", "too large"),
    "a million digits": (raw_calibration("9" * 50_000), "calibration.json", "too long"),
    "the same key twice": (
        replaced("calibration.json", b'{"temperature": 1, "temperature": 2}'),
        "calibration.json",
        "stands twice",
    ),
    "a list": (replaced("calibration.json", b"[]"), "calibration.json", "must hold a JSON object"),
    # --- config ---
    "depth": (cnn(channels=None, depth=10**6), "config.json", "less than or equal to 6"),
    "width": (cnn(channels=None, width=10**9), "config.json", "less than or equal to 1024"),
    "channels": (cnn(channels=[10**9]), "config.json", "less than or equal to 8192"),
    "convolutions": (cnn(convs_per_block=10**6), "config.json", "less than or equal to 8"),
    "a long head": (cnn(head=[8] * 10_000), "config.json", "the head has 10000 layers"),
    "blocks beyond the image": (cnn(channels=[8] * 8), "config.json", "to nothing at block"),
    "wide blocks": (
        cnn(channels=[8192] * 4, convs_per_block=8),
        "config.json",
        "bytes of weights",
    ),
    "a wide head": (cnn(head=[8192] * 16), "config.json", "bytes of weights"),
    "activations": (large_activations, "config.json", "numbers in a layer"),
    "another shape": (cnn(channels=[8192, 8]), "model.safetensors", "the network wants"),
    "unknown option": (cnn(eval="os.system"), "config.json", "Extra inputs are not permitted"),
    "unknown family": (
        config(lambda d: d["fer_ray"].update(model={"vit": {}})),
        "config.json",
        "one branch",
    ),
    "another network": (
        config(
            lambda d: d.update(
                architecture="resnet",
                fer_ray={"name": "x", "model": {"resnet": {"weights": "none"}}},
            )
        ),
        "model.safetensors",
        "does not fit the network",
    ),
    "an ensemble of none": (
        config(
            lambda d: d.update(
                architecture="ensemble", fer_ray={"name": "x", "model": {"ensemble": {}}}
            )
        ),
        "config.json",
        "names no members",
    ),
    "num_classes": (config(lambda d: d.update(num_classes=10**6)), "config.json", "must agree"),
    "many labels": (labels([str(n) for n in range(5000)]), "config.json", "at most 127"),
    "one label": (labels(["angry"]), "config.json", "at least 2"),
    "labels of numbers": (labels(list(range(7))), "config.json", "valid string"),
    "labels twice": (labels(["happy"] * 7), "config.json", "holds a name twice"),
    "labels with escapes": (
        labels(["\x1b[2Jhappy", *"abcdef"]),
        "config.json",
        "a name is printable",
    ),
    "labels too long": (labels(["x" * 81, *"abcdef"]), "config.json", "at most 80 characters"),
    "a name with a newline": (
        config(lambda d: d["fer_ray"].update(name="a\nb")),
        "config.json",
        "a name is printable",
    ),
    # --- preprocessing and calibration ---
    "image size": (recipe(image_size_px=10**5), "preprocessor_config.json", "1..256"),
    "source size": (recipe(source_px=0), "preprocessor_config.json", "1..256"),
    "a side of words": (recipe(crop_px="20"), "preprocessor_config.json", "valid integer"),
    "crop": (recipe(crop_px=60), "preprocessor_config.json", "exceeds image_size_px"),
    "channel": (recipe(channels=2), "preprocessor_config.json", "channels must be 1 or 3"),
    "equalize": (recipe(equalize="eval"), "preprocessor_config.json", "is unknown"),
    "std 0": (recipe(std=0.0), "preprocessor_config.json", "std in 1e-6..1"),
    "mean": (recipe(mean=-1e30), "preprocessor_config.json", "mean must lie in 0..1"),
    "unknown field": (recipe(hook="x"), "preprocessor_config.json", "missing or unknown"),
    "two means": (
        edited("preprocessor_config.json", lambda d: d.update(image_mean=[0.1])),
        "preprocessor_config.json",
        "image_mean does not agree",
    ),
    "two sizes": (
        config(lambda d: d.update(input_size=[3, 224, 224])),
        "config.json",
        "input_size does not agree",
    ),
    "temperature 0": (calibration(temperature=0), "calibration.json", "0.01..100"),
    "temperature below 0": (calibration(temperature=-1.0), "calibration.json", "0.01..100"),
    "temperature of words": (calibration(temperature="1"), "calibration.json", "valid number"),
    "temperature true": (calibration(temperature=True), "calibration.json", "valid number"),
    "threshold": (calibration(threshold=1.5), "calibration.json", "threshold must lie in 0..1"),
    "no threshold": (
        edited("calibration.json", lambda d: d.pop("threshold")),
        "calibration.json",
        "'threshold' is missing",
    ),
    # --- open documents ---
    "accuracy of words": (
        edited("metrics.json", lambda d: d["validation"].update(accuracy="99 %")),
        "metrics.json",
        "validation.accuracy",
    ),
    "lineage without data": (
        edited("lineage.json", lambda d: d.pop("data")),
        "lineage.json",
        "data: Field required",
    ),
    # --- tensors ---
    "weights empty": (replaced("model.safetensors", b""), "model.safetensors", "too short"),
    "weights no safetensors": (
        replaced("model.safetensors", b"\x80\x04words and more words"),
        "model.safetensors",
        "claims a header",
    ),
    "header of terabytes": (claimed_header(HUGE), "model.safetensors", "claims a header"),
    "header beyond the file": (claimed_header(101), "model.safetensors", "claims a header"),
    "huge shape": (
        header(lambda d: d[FIRST].update(shape=[HUGE, HUGE, 3, 3])),
        "model.safetensors",
        "its offsets give",
    ),
    "negative shape": (
        header(lambda d: d[FIRST].update(shape=[-4, -1, 3, 3])),
        "model.safetensors",
        "cannot be",
    ),
    "overlapping": (header(overlapping), "model.safetensors", "overlaps another tensor"),
    "bytes too many": (
        header(lambda d: None, b"\0" * 100_000),
        "model.safetensors",
        "its tensors need",
    ),
    "bytes too few": (header(lambda d: None, b""), "model.safetensors", "its tensors need"),
    "unknown dtype": (
        header(lambda d: d[FIRST].update(dtype="OBJECT")),
        "model.safetensors",
        "has dtype 'OBJECT'",
    ),
    "double": (
        tensors("model.safetensors", lambda t: t.update({FIRST: t[FIRST].double()})),
        "model.safetensors",
        "has dtype 'F64'",
    ),
    "integers": (
        tensors("model.safetensors", lambda t: t.update({FIRST: t[FIRST].long()})),
        "model.safetensors",
        "the network wants F32[4, 1, 3, 3]",
    ),
    "transposed": (
        tensors("model.safetensors", lambda t: t.update({FIRST: t[FIRST].reshape(1, 4, 3, 3)})),
        "model.safetensors",
        "the network wants F32[4, 1, 3, 3]",
    ),
    "a tensor too few": (
        tensors("model.safetensors", lambda t: t.pop(FIRST)),
        "model.safetensors",
        "is missing",
    ),
    "a tensor too many": (
        tensors("model.safetensors", lambda t: t.update(extra=torch.zeros(1))),
        "model.safetensors",
        "'extra' is surplus",
    ),
    "weights not finite": (
        tensors("model.safetensors", lambda t: t[FIRST].fill_(float("nan"))),
        "model.safetensors",
        "not finite",
    ),
    "other weights": (
        tensors("model.safetensors", lambda t: t[FIRST].mul_(1.5)),
        "",
        "golden logits differ",
    ),
    # --- golden answers ---
    "golden images of another kind": (
        tensors("golden.safetensors", lambda t: t.update(images=t["images"].float())),
        "golden.safetensors",
        "golden images must be",
    ),
    "golden images flat": (
        tensors("golden.safetensors", lambda t: t.update(images=t["images"].flatten(1))),
        "golden.safetensors",
        "golden images must be",
    ),
    "no golden image": (
        tensors(
            "golden.safetensors",
            lambda t: t.update(images=t["images"][:0].clone(), logits=t["logits"][:0].clone()),
        ),
        "golden.safetensors",
        "golden images must be",
    ),
    "a large golden image": (
        tensors(
            "golden.safetensors",
            lambda t: t.update(images=torch.zeros(1, 300, 300, dtype=torch.uint8)),
        ),
        "golden.safetensors",
        "golden images must be",
    ),
    "golden logits of other classes": (
        tensors("golden.safetensors", lambda t: t.update(logits=t["logits"][:, :3].contiguous())),
        "golden.safetensors",
        "logits is F32[16, 3]",
    ),
    "golden logits not finite": (
        tensors("golden.safetensors", lambda t: t["logits"].fill_(float("inf"))),
        "golden.safetensors",
        "not finite",
    ),
    "golden logits moved": (
        tensors("golden.safetensors", lambda t: t["logits"].add_(0.01)),
        "",
        "golden logits differ",
    ),
}
