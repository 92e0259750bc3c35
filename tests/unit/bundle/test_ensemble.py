"""Ensembles: one bundle of several that vote softly, at work wherever a bundle is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fer_ray import api
from fer_ray.bundle.contents import CalibrationConfig
from fer_ray.bundle.load import Bundle, load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.cli.main import app
from fer_ray.data.faces import draw_faces
from fer_ray.data.importing import import_images
from fer_ray.data.sample import write_sample
from fer_ray.errors import BundleError, DataError, OutputExistsError
from fer_ray.evaluation.ensembling import make_ensemble
from fer_ray.evaluation.packing import repack
from tests.bundles import tiny_bundle
from tests.hostile_bundles import write_manifest

OTHER: dict[str, Any] = {
    "name": "other",
    "data.image_size": 30,
    "data.crop": 27,
    "data.channels": 3,
    "data.normalize": "imagenet",
    "data.equalize": "histogram",
    "model.cnn": {"channels": [6, 8], "residual": True},
}
"""Unlike the small config in all that preprocessing has."""


@pytest.fixture(scope="module")
def members(original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    place = tmp_path_factory.mktemp("members")
    tiny_bundle(place / "other", seed=3, changes=OTHER)
    return load_bundle(original), load_bundle(place / "other")


@pytest.fixture(scope="module")
def made(members: tuple[Bundle, ...], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("ensembles") / "two"
    return make_ensemble(members, out, name="two", data=None)


@pytest.fixture
def changed(made: Bundle, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


def faces(count: int = 40) -> np.ndarray:
    """uint8 [N, 24, 24]: as these bundles decode them."""
    images = draw_faces(count, 5)[0].reshape(count, 24, 2, 24, 2).mean(axis=(2, 4))
    return images.round().astype(np.uint8)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 1e-6), ("bf16", 1e-6)])
def test_it_gives_the_mean_of_the_members_calibrated_probabilities(
    made: Bundle, members: tuple[Bundle, ...], precision: str, rounding: float
) -> None:
    images = faces()
    alone = [Predictor(m, precision, "cpu").predict(images).probabilities for m in members]
    together = Predictor(made, precision, "cpu").predict(images)
    np.testing.assert_allclose(together.probabilities, np.mean(alone, axis=0), atol=rounding)
    assert np.abs(alone[0] - alone[1]).max() > 0.1, "they must differ to prove anything"
    assert not together.uncertain.any(), "no threshold was fitted"


@pytest.mark.parametrize("equalize", ["histogram", "clahe"])
def test_what_members_share_is_done_once(tmp_path: Path, equalize: str) -> None:
    shared = {"data.equalize": equalize, "data.image_size": 28}
    several = tuple(
        load_bundle(tiny_bundle(tmp_path / str(crop), changes={**shared, "data.crop": crop}))
        for crop in (20, 26)
    )
    made = make_ensemble(several, tmp_path / "out", name="x", data=None)
    assert made.contents.recipe.equalize == equalize
    assert made.contents.recipe.image_size_px == made.contents.recipe.crop_px == 28
    images = faces()
    alone = [Predictor(m, "fp32", "cpu").predict(images).probabilities for m in several]
    together = Predictor(made, "fp32", "cpu").predict(images).probabilities
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-6)


def test_every_grey_value_survives_the_way_through_bf16(made: Bundle) -> None:
    unit = torch.arange(256).float() / 255
    for dtype in (torch.float32, torch.bfloat16):
        back = (unit.to(dtype).float() * 255).round().to(torch.uint8)
        assert torch.equal(back.int(), torch.arange(256).int())


def test_images_of_any_size_and_number_are_answered(made: Bundle) -> None:
    predictor = Predictor(made, "fp32", "cpu")
    assert predictor.source_px == 24
    assert predictor.predict(draw_faces(3, 1)[0]).probabilities.shape == (3, 7)
    assert predictor.predict(faces(0).reshape(0, 24, 24)).probabilities.shape == (0, 7)


def test_its_logits_are_log_probabilities(made: Bundle) -> None:
    logits = Predictor(made, "fp32", "cpu").logits(faces())
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-6)


def test_what_it_says(made: Bundle, members: tuple[Bundle, ...]) -> None:
    assert made.contents.metrics["params"] == sum(m.contents.metrics["params"] for m in members)
    assert made.contents.metrics["macs"] == sum(m.contents.metrics["macs"] for m in members)
    assert made.title.startswith(f"two ({made.id[:12]}), 2 members")
    assert [m.id for m in made.members] == [m.id for m in members]
    assert [m["bundle_id"] for m in made.contents.lineage["members"]] == [m.id for m in members]
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert f"| other | {members[1].id[:12]} |" in card
    assert "None were measured" in card


def test_members_are_whole_bundles_of_their_own(made: Bundle, members: tuple[Bundle, ...]) -> None:
    for number, member in enumerate(members):
        assert load_bundle(made.path / "members" / str(number)).id == member.id


def test_the_order_of_members_does_not_matter_to_the_answer_but_to_the_id(
    members: tuple[Bundle, ...], made: Bundle, tmp_path: Path
) -> None:
    turned = make_ensemble(members[::-1], tmp_path / "turned", name="two", data=None)
    assert turned.id != made.id
    np.testing.assert_allclose(
        Predictor(turned, "fp32", "cpu").logits(faces()),
        Predictor(made, "fp32", "cpu").logits(faces()),
        atol=1e-5,
    )


# --- figures and calibration ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    write_sample(place / "images", 80, 0)
    import_images(place / "images", place / "prepared", size_px=24, on_error="stop")
    return place / "prepared"


def test_with_data_it_has_figures_and_a_fitted_calibration(
    members: tuple[Bundle, ...], data: Path, tmp_path: Path
) -> None:
    bundle = api.ensemble(
        [str(m.path) for m in members], tmp_path / "out", name="fitted", data=data, num_threads=1
    )
    validation = bundle.contents.metrics["validation"]
    again = api.evaluate(Predictor(bundle, "fp32", "cpu"), data).document
    assert again["accuracy"] == validation["accuracy"]
    assert again["log_loss"] == pytest.approx(validation["log_loss"], abs=1e-6)
    assert bundle.contents.calibration.temperature != 1.0
    assert bundle.contents.calibration.target_precision == 0.9
    assert "Results on the validation split" in (bundle.path / "README.md").read_text()


def test_data_of_other_classes_are_refused(members: tuple[Bundle, ...], tmp_path: Path) -> None:
    for name, value in (("cat", 9), ("dog", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            _png(tmp_path / "images" / name / f"{number}.png", value + number)
    api.import_data(tmp_path / "images", tmp_path / "pets", classes="cat,dog", size_px=24)
    with pytest.raises(DataError, match="the data have the classes cat, dog"):
        make_ensemble(members, tmp_path / "out", name="x", data=tmp_path / "pets")
    assert not (tmp_path / "out").exists()


def _png(path: Path, value: int) -> None:
    from PIL import Image

    Image.new("L", (24, 24), value).save(path)


def test_another_calibration_makes_another_ensemble(made: Bundle, tmp_path: Path) -> None:
    contents = replace(made.contents, calibration=CalibrationConfig(2.0, 0.4, 0.9, 0.5))
    repack(made, tmp_path / "warm", contents, "card")
    warm = load_bundle(tmp_path / "warm")
    assert warm.id != made.id
    assert [m.id for m in warm.members] == [m.id for m in made.members]
    assert warm.contents.metrics["params"] == made.contents.metrics["params"]
    one, two = Predictor(made, "fp32", "cpu"), Predictor(warm, "fp32", "cpu")
    np.testing.assert_array_equal(one.logits(faces()), two.logits(faces()))
    assert two.predict(faces()).scores.mean() < one.predict(faces()).scores.mean()


def test_another_calibration_makes_another_bundle_of_the_same_network(
    original: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(original)
    warm = replace(bundle.contents.calibration, temperature=2.0)
    repack(bundle, tmp_path / "b", replace(bundle.contents, calibration=warm), "card")
    other = load_bundle(tmp_path / "b")
    assert other.id != bundle.id
    weights = "model.safetensors"
    assert (other.path / weights).read_bytes() == (original / weights).read_bytes()


# --- at the command line --------------------------------------------------------------------------


def test_the_command_makes_it_and_predict_uses_it(
    members: tuple[Bundle, ...], data: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    places = [str(m.path) for m in members]
    out = str(tmp_path / "vote")
    command = ["ensemble", *places, "--out", out, "--threads", "1"]
    done = runner.invoke(app, [*command, "--data", str(data), "--name", "vote"])
    assert done.exit_code == 0, done.output
    made = load_bundle(Path(out))
    assert f"bundle {made.id[:12]} at {out}" in done.stdout
    assert "validation accuracy" in done.stdout
    assert done.stderr.count("member: ") == 2
    image = tmp_path / "face.png"
    _png(image, 120)
    asked = runner.invoke(app, ["predict", str(image), "--bundle", out, "--json"])
    assert asked.exit_code == 0, asked.output
    assert len(json.loads(asked.stdout)["predictions"]) == 7
    assert "vote (" in asked.stderr
    again = runner.invoke(app, command)
    assert isinstance(again.exception, OutputExistsError)


def test_without_data_the_command_says_what_is_missing(
    members: tuple[Bundle, ...], tmp_path: Path
) -> None:
    places = [str(m.path) for m in members]
    command = ["ensemble", *places, "--out", str(tmp_path / "vote"), "--threads", "1", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["validation"] is None
    plain = command[:-1]
    plain[-3] = str(tmp_path / "plain")
    assert "temperature is 1" in CliRunner().invoke(app, plain).stderr


# --- what cannot vote together --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.classes": "valence"}, "has the classes negative"),
        ({"data.classes": {"disgust": "disgust"}}, "has the class map"),
    ],
)
def test_other_classes_are_refused(
    members: tuple[Bundle, ...], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    first = members[0]
    lineage = json.loads(json.dumps(first.contents.lineage))
    lineage["config"]["data"]["classes"] = changes["data.classes"]
    names = first.contents.class_names
    if changes["data.classes"] == "valence":
        names = ("negative", *names[1:])
    other = replace(
        members[1], contents=replace(members[1].contents, class_names=names, lineage=lineage)
    )
    with pytest.raises(BundleError, match=words):
        make_ensemble((first, other), tmp_path / "out", name="x", data=None)


def test_another_decoded_size_is_refused(members: tuple[Bundle, ...], tmp_path: Path) -> None:
    recipe = replace(members[1].contents.recipe, source_px=48)
    other = replace(members[1], contents=replace(members[1].contents, recipe=recipe))
    with pytest.raises(BundleError, match=r"images decoded at \(pixels\) 48, but .* has 24"):
        make_ensemble((members[0], other), tmp_path / "out", name="x", data=None)


def test_too_few_too_many_twice_or_nested_are_refused(
    made: Bundle, members: tuple[Bundle, ...], tmp_path: Path
) -> None:
    for several, words in (
        (members[:1], "2 to 16 members, but got 1"),
        (members * 9, "2 to 16 members, but got 18"),
        ((members[0], members[0]), "the same bundle"),
        ((members[0], made), "do not nest"),
    ):
        with pytest.raises(BundleError, match=words):
            make_ensemble(several, tmp_path / "out", name="x", data=None)
    with pytest.raises(OutputExistsError):
        make_ensemble(members, made.path, name="x", data=None)
    with pytest.raises(BundleError, match="printable"):
        make_ensemble(members, tmp_path / "out", name="a\nb", data=None)
    assert not (tmp_path / "out").exists()


# --- damage and attacks ---------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    return caught.value.message


def test_one_changed_byte_in_any_file_of_any_member_is_refused(changed: Path) -> None:
    for file in sorted(changed.rglob("*")):
        if not file.is_file() or file.name == "README.md":
            continue
        whole = file.read_bytes()
        file.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        assert str(file) in refusal(changed)
        file.write_bytes(whole)
    load_bundle(changed)


def test_a_members_edited_card_warns(changed: Path) -> None:
    (changed / "members" / "1" / "README.md").write_text("mine")
    assert "members/1/README.md" in load_bundle(changed).warnings[0]


def test_a_member_that_is_another_bundle_is_refused(changed: Path, tmp_path: Path) -> None:
    shutil.rmtree(changed / "members" / "1")
    tiny_bundle(changed / "members" / "1", seed=9)
    assert "members/1 is another bundle" in refusal(changed)


def test_a_missing_member_is_refused(changed: Path) -> None:
    shutil.rmtree(changed / "members" / "1")
    assert "members/1 is not a bundle" in refusal(changed)


def test_a_member_outside_is_refused(changed: Path, members: tuple[Bundle, ...]) -> None:
    shutil.rmtree(changed / "members" / "1")
    (changed / "members" / "1").symlink_to(members[1].path)
    assert "leads out of the bundle" in refusal(changed)


def _listing(path: Path, folders: dict[str, str]) -> None:
    """Name other members, in a manifest that agrees with itself."""
    from fer_ray.bundle.manifest import MANIFEST, bundle_id

    files = json.loads((path / MANIFEST).read_text())["files"]
    write_manifest(path, {"members": folders, "bundle_id": bundle_id(files, folders)})


def test_a_nested_ensemble_is_refused_however_it_is_sealed(made: Bundle, changed: Path) -> None:
    shutil.rmtree(changed / "members" / "1")
    shutil.copytree(made.path, changed / "members" / "1")
    _listing(changed, {"members/0": made.members[0].id, "members/1": made.id})
    assert "members/1 is an ensemble: they do not nest" in refusal(changed)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({}, "0 member"),
        ({"members/0": "0" * 64}, "1 member"),
        ({f"members/{n}": f"{n:064}" for n in range(17)}, "17 member"),
        ({"members/0": "0" * 64, "../../etc": "1" * 64}, "must be members/0 to members/1"),
        ({"members/0": "0" * 64, "members/1": "0" * 64}, "the same member twice"),
        ({"members/0": "0" * 64, "members/1": "x"}, "64 hexadecimal digits"),
    ],
)
def test_hostile_lists_of_members_are_refused(
    changed: Path, folders: dict[str, str], words: str
) -> None:
    _listing(changed, folders)
    assert words in refusal(changed)


def test_a_preprocessing_of_its_own_is_refused(changed: Path) -> None:
    file = changed / "preprocessor_config.json"
    ours = json.loads(file.read_text())["fer_ray"] | {"mean": 0.5}
    file.write_text(json.dumps({"fer_ray": ours}))
    config = json.loads((changed / "config.json").read_text())
    del config["pretrained_cfg"]
    (changed / "config.json").write_text(json.dumps(config))
    _seal(changed)
    assert "members' preprocessing has in common" in refusal(changed)


def test_other_labels_than_its_members_are_refused(changed: Path) -> None:
    config = json.loads((changed / "config.json").read_text())
    names = config["label_names"][::-1]
    config |= {
        "label_names": names,
        "id2label": {str(i): n for i, n in enumerate(names)},
        "label2id": {n: i for i, n in enumerate(names)},
    }
    (changed / "config.json").write_text(json.dumps(config))
    _seal(changed)
    assert "label_names are not those of" in refusal(changed)


def _seal(path: Path) -> None:
    from fer_ray.bundle.manifest import MANIFEST, manifest_of

    members = json.loads((path / MANIFEST).read_text())["members"]
    (path / MANIFEST).write_text(json.dumps(manifest_of(path, members)))
