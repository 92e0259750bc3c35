"""Bundles: bit-equal after a load, immutable, and refused when anything about them is wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fer_ray.bundle import manifest
from fer_ray.bundle.load import Bundle, find_bundle, load_bundle
from fer_ray.bundle.manifest import FILES, IDENTITY, MANIFEST, manifest_of
from fer_ray.data.faces import draw_faces
from fer_ray.errors import BundleError, OutputExistsError
from fer_ray.images.preprocess import Preprocess
from fer_ray.labels import EXPRESSIONS
from fer_ray.models.inference import logits_of
from tests.bundles import tiny_bundle
from tests.hostile_bundles import seal


def logits(bundle: Bundle) -> torch.Tensor:
    preprocess = Preprocess(bundle.contents.recipe)
    images = torch.from_numpy(draw_faces(8, 77)[0])
    return logits_of(bundle.model, preprocess, preprocess.static(images), precision="fp32")


def edit(path: Path, name: str, change: Any) -> None:
    """Change a JSON file of a bundle."""
    document = json.loads((path / name).read_text())
    change(document)
    (path / name).write_text(json.dumps(document))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    return str(caught.value)


# --- round trip -----------------------------------------------------------------------------------


def test_a_bundle_is_exactly_its_files_and_none_is_a_pickle(original: Path) -> None:
    assert {path.name for path in original.iterdir()} == {*FILES, MANIFEST}
    for path in original.iterdir():
        data = path.read_bytes()
        assert not data.startswith((b"\x80", b"PK")), f"{path.name}: pickle or zip"


def test_a_loaded_bundle_answers_bit_by_bit_as_before(original: Path) -> None:
    one, two = load_bundle(original), load_bundle(original)
    assert one.id == two.id
    assert torch.equal(logits(one), logits(two))
    preprocess = Preprocess(one.contents.recipe)
    golden = logits_of(
        one.model, preprocess, preprocess.static(one.golden_images), precision="fp32"
    )
    assert torch.equal(golden, one.golden_logits), "as it answered when it was written"
    assert one.warnings == ()
    assert not one.model.training


def test_a_moved_bundle_is_the_same(copy: Path, original: Path) -> None:
    assert load_bundle(copy).id == load_bundle(original).id


def test_what_it_says(original: Path) -> None:
    bundle = load_bundle(original)
    contents = bundle.contents
    assert contents.class_names == EXPRESSIONS
    assert (contents.recipe.source_px, contents.recipe.crop_px) == (24, 20)
    assert contents.lineage["config"]["model"] == {
        "cnn": {**contents.lineage["config"]["model"]["cnn"], "channels": [4, 8]}
    }
    assert contents.metrics["validation"]["count"] == 32
    assert contents.metrics["params"] == sum(p.numel() for p in bundle.model.parameters())
    assert bundle.title.startswith("tiny (" + bundle.id[:12])
    assert bundle.title.endswith("on synthetic faces")
    assert bundle.golden_images.shape == (16, 48, 48)


def test_the_names_of_other_libraries(original: Path) -> None:
    config = json.loads((original / "config.json").read_text())
    assert config["id2label"]["3"] == "happy"
    assert config["label2id"]["neutral"] == 6
    assert config["num_classes"] == 7
    assert config["input_size"] == [1, 20, 20]
    assert list(config["fer_ray"]["model"]) == ["cnn"], "absent branches are left out"
    preprocessor = json.loads((original / "preprocessor_config.json").read_text())
    assert preprocessor["size"] == {"height": 24, "width": 24}
    assert preprocessor["image_mean"] == [0.5]


def test_the_card_warns_of_synthetic_faces_and_names_limits(original: Path) -> None:
    card = (original / "README.md").read_text(encoding="utf-8")
    assert "synthetic drawings" in card
    assert "not what a person feels" in card
    assert all(f"| {name} |" in card for name in EXPRESSIONS)


def test_an_existing_place_is_refused(copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(OutputExistsError):
        tiny_bundle(copy, seed=1)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


# --- identity -------------------------------------------------------------------------------------


def test_other_weights_are_another_bundle(original: Path, tmp_path: Path) -> None:
    assert load_bundle(tiny_bundle(tmp_path / "b", seed=1)).id != load_bundle(original).id


@pytest.mark.parametrize("name", FILES)
def test_the_id_changes_with_what_decides_an_answer_and_nothing_else(
    copy: Path, original: Path, name: str
) -> None:
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    changed = manifest_of(copy)["bundle_id"] != manifest_of(original)["bundle_id"]
    assert changed == (name in IDENTITY)


def test_another_calibration_is_another_bundle(copy: Path, original: Path) -> None:
    edit(copy, "calibration.json", lambda d: d.update(temperature=d["temperature"] * 2))
    seal(copy)
    assert load_bundle(copy).id != load_bundle(original).id


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FILES if name != manifest.CARD])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_changed_byte_is_refused_by_the_files_name(copy: Path, name: str, where: float) -> None:
    data = bytearray((copy / name).read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    (copy / name).write_bytes(data)
    text = refusal(copy)
    assert str(copy / name) in text
    assert "was changed" in text


def test_an_edited_card_warns_only(copy: Path, original: Path) -> None:
    (copy / "README.md").write_text("mine")
    bundle = load_bundle(copy)
    assert bundle.id == load_bundle(original).id
    (warning,) = bundle.warnings
    assert "the model card was edited" in warning
    (copy / "README.md").unlink()
    assert "is missing" in load_bundle(copy).warnings[0]


@pytest.mark.parametrize("name", [*(n for n in FILES if n != manifest.CARD), MANIFEST])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert name in refusal(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format=2), "has bundle format 2; this fer-ray reads format 1"),
        (lambda d: d.pop("format"), "has bundle format None"),
        (lambda d: d.update(bundle_id="0" * 64), "its own sha256 does not hold"),
        (lambda d: d["files"].pop("README.md"), "its own sha256 does not hold"),
        (lambda d: d.update(extra=1), "its own sha256 does not hold"),
    ],
)
def test_a_changed_manifest_is_refused(copy: Path, change: Any, words: str) -> None:
    edit(copy, MANIFEST, change)
    assert words in refusal(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": 1}', '"' + "x" * 100])
def test_a_manifest_that_is_none(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    refusal(copy)


def test_a_resealed_manifest_with_another_id_or_other_files_is_refused(copy: Path) -> None:
    for change in (
        lambda d: d.update(bundle_id="0" * 64),
        lambda d: d["files"].update({"../evil": "0" * 64}),
    ):
        document = manifest_of(copy)
        body = {key: value for key, value in document.items() if key != "sha256"}
        change(body)
        body["sha256"] = manifest._canonical_digest(body)
        (copy / MANIFEST).write_text(json.dumps(body))
        refusal(copy)


def test_files_and_links_outside_the_manifest_are_ignored(copy: Path, original: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "link").symlink_to("/etc/passwd")
    (copy / "folder").mkdir()
    bundle = load_bundle(copy)
    assert bundle.id == load_bundle(original).id
    assert bundle.warnings == ()


# --- hostile: resealed, so that only the contents can be judged -----------------------------------


def cnn_of(document: dict[str, Any]) -> dict[str, Any]:
    cnn: dict[str, Any] = document["fer_ray"]["model"]["cnn"]
    return cnn


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda d: cnn_of(d).update(channels=[8192] * 8, convs_per_block=8)),
        ("config.json", lambda d: cnn_of(d).update(head=[8192] * 50)),
        ("config.json", lambda d: cnn_of(d).update(channels=[10**9])),
        ("config.json", lambda d: cnn_of(d).update(channels=[8] * 8)),
        ("config.json", lambda d: cnn_of(d).update(unknown=1)),
        ("config.json", lambda d: d["fer_ray"].update(model={"resnet": {"arch": "resnet50"}})),
        ("config.json", lambda d: d["fer_ray"].update(model={"vit": {}})),
        ("config.json", lambda d: d["fer_ray"].update(model=None)),
        ("config.json", lambda d: d.pop("fer_ray")),
        ("config.json", lambda d: d.update(label_names=["a"])),
        ("config.json", lambda d: d.update(label_names=["a"] * 7)),
        ("config.json", lambda d: d.update(label_names=[str(n) for n in range(100_000)])),
        ("config.json", lambda d: d.update(label_names=[str(n) for n in range(8)])),
        ("config.json", lambda d: d.update(label_names=None)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(image_size_px=10**6)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(source_px=0)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(crop_px=60)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(crop_px="20")),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(channels=2)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(channels=3)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(mean="0.5")),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(mean=0.6)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(std=0.0)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(std=None)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].update(extra=1)),
        ("preprocessor_config.json", lambda d: d["fer_ray"].pop("mean")),
        ("calibration.json", lambda d: d.update(temperature=0)),
        ("calibration.json", lambda d: d.update(temperature=-1.0)),
        ("calibration.json", lambda d: d.update(temperature=float("nan"))),
        ("calibration.json", lambda d: d.update(temperature=float("inf"))),
        ("calibration.json", lambda d: d.update(temperature="1")),
        ("calibration.json", lambda d: d.update(threshold="0.5")),
        ("calibration.json", lambda d: d.update(threshold=None)),
        ("calibration.json", lambda d: d.pop("threshold")),
    ],
)
def test_contents_that_do_not_fit_are_refused(copy: Path, name: str, change: Any) -> None:
    edit(copy, name, change)
    seal(copy)
    refusal(copy)


@pytest.mark.parametrize("name", ["config.json", "calibration.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["[]", "null", "{", "1"])
def test_documents_of_another_form_are_refused(copy: Path, name: str, text: str) -> None:
    (copy / name).write_text(text)
    seal(copy)
    refusal(copy)


@pytest.mark.parametrize("name", ["metrics.json", "lineage.json"])
def test_side_documents_of_another_form_are_refused(copy: Path, name: str) -> None:
    (copy / name).write_text("[]")
    seal(copy)
    refusal(copy)


def change_tensors(path: Path, name: str, change: Any) -> None:
    tensors = dict(load_file(path / name))
    change(tensors)
    save_file(tensors, path / name)
    seal(path)


FIRST = "blocks.0.body.0.weight"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop(FIRST),
        lambda t: t.update(extra=torch.zeros(1)),
        lambda t: t.update({FIRST: t[FIRST][:2].contiguous()}),
        lambda t: t.update({FIRST: t[FIRST].double()}),
        lambda t: t.update({FIRST: t[FIRST] * 1.5}),
        lambda t: t.update({FIRST: t[FIRST] * float("nan")}),
    ],
    ids=["missing", "surplus", "shape", "dtype", "other values", "nan"],
)
def test_weights_that_do_not_fit_or_do_not_answer_as_they_did(copy: Path, change: Any) -> None:
    change_tensors(copy, "model.safetensors", change)
    refusal(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(logits=t["logits"] + 0.01),
        lambda t: t.update(logits=t["logits"][:, :3].contiguous()),
        lambda t: t.update(logits=t["logits"] * float("nan")),
        lambda t: t.pop("images"),
        lambda t: t.update(images=t["images"].flip(0)),
        lambda t: t.update(images=t["images"][:, :0].contiguous()),
        lambda t: t.update(images=t["images"].float()),
        lambda t: t.update(images=torch.zeros(3, dtype=torch.uint8)),
        lambda t: t.update(
            images=torch.zeros(0, 48, 48, dtype=torch.uint8), logits=torch.zeros(0, 7)
        ),
    ],
    ids=["moved", "shape", "nan", "missing", "others", "thin", "floats", "flat", "none"],
)
def test_golden_answers_that_do_not_hold(copy: Path, change: Any) -> None:
    change_tensors(copy, "golden.safetensors", change)
    refusal(copy)


def test_rounding_of_another_processor_is_let_through(copy: Path) -> None:
    change_tensors(copy, "golden.safetensors", lambda t: t.update(logits=t["logits"] + 5e-4))
    load_bundle(copy)


def test_files_that_are_not_safetensors(copy: Path) -> None:
    for name in ("model.safetensors", "golden.safetensors"):
        for data in (b"", b"words", b"\xff" * 100):
            (copy / name).write_bytes(data)
            seal(copy)
            refusal(copy)
        shutil.copy(copy / "README.md", copy / name)


# --- where it is ----------------------------------------------------------------------------------


def test_a_bundle_or_a_runs_best(original: Path, tmp_path: Path) -> None:
    assert find_bundle(str(original)) == original
    run = tmp_path / "run"
    (run / "bundles").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    with pytest.raises(BundleError, match="has no best bundle yet"):
        find_bundle(str(run))
    shutil.copytree(original, run / "bundles" / "3")
    (run / "best").symlink_to("bundles/3")
    found = find_bundle(str(run))
    assert found.name == "3"
    assert load_bundle(found).id == load_bundle(original).id
    with pytest.raises(BundleError, match="there is no bundle"):
        find_bundle(str(tmp_path / "none"))


def test_a_place_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        load_bundle(tmp_path)


def test_golden_images_are_synthetic_and_always_the_same(original: Path, tmp_path: Path) -> None:
    other = load_bundle(tiny_bundle(tmp_path / "b", seed=1))
    assert np.array_equal(load_bundle(original).golden_images, other.golden_images)
