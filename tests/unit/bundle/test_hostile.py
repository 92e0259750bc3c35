"""Hostile bundles: each refused by a rule that is named, and none makes memory grow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.manifest import FILES, MANIFEST
from fer_ray.bundle.reading import parse_json
from fer_ray.errors import BundleError, FerRayError
from tests.hostile_bundles import ATTACKS, seal

ROOT = Path(__file__).parents[3]
MIB = 1024**2


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 25


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_by_a_rule_that_is_named(copy: Path, name: str) -> None:
    attack, file, words = ATTACKS[name]
    attack(copy)
    with pytest.raises(BundleError) as caught:
        load_bundle(copy)
    text = caught.value.message
    assert str(copy / file) in text
    assert words in text
    assert len(text) < 1000
    assert "cannot be read: Runtime" not in text, "a rule refuses, not torch"


# Runs all attacks in one process whose address space may grow by 256 MiB and no more: a bundle that
# asked for memory would end in a MemoryError, which is not a refusal.
_BOUNDED = """
import resource, shutil, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from fer_ray.bundle.load import load_bundle
from fer_ray.errors import BundleError
from tests.hostile_bundles import ATTACKS

original, places = Path(sys.argv[1]), Path(sys.argv[2])
load_bundle(original)
for number, (attack, _, _) in enumerate(ATTACKS.values()):
    attack(Path(shutil.copytree(original, places / str(number) / "bundle")))
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 256 * 1024**2
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = peak_mib()
for number, name in enumerate(ATTACKS):
    try:
        load_bundle(places / str(number) / "bundle")
    except BundleError as error:
        if "cannot be read: " in error.message and "Error: " in error.message:
            sys.exit(f"{name} was refused by luck: {error}")
        continue
    sys.exit(f"{name} was let in")
print(peak_mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_is_bounded(original: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BOUNDED, str(original), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 128, "MiB of peak memory above that of a good bundle"


@pytest.mark.parametrize("name", [name for name in (*FILES, MANIFEST) if name != "README.md"])
def test_cut_short_anywhere_it_is_refused(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    for size in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 2):
        (copy / name).write_bytes(whole[:size])
        with pytest.raises(BundleError) as caught:
            load_bundle(copy)
        assert name in caught.value.message


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@settings(max_examples=20)
@given(data=st.data())
def test_arbitrary_bytes_never_raise_outside_our_tree(
    original: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("fuzz") / "bundle"
    shutil.copytree(original, place)
    whole = (place / name).read_bytes()
    kind = data.draw(st.sampled_from(["bytes", "json", "splice"]))
    if kind == "bytes":
        changed = data.draw(st.binary(max_size=200))
    elif kind == "json":
        changed = json.dumps(data.draw(_JSON)).encode()
    else:
        at = data.draw(st.integers(0, len(whole)))
        cut = data.draw(st.integers(0, 40))
        changed = whole[:at] + data.draw(st.binary(max_size=20)) + whole[at + cut :]
    (place / name).write_bytes(changed)
    if name != MANIFEST and data.draw(st.booleans()):
        seal(place)
    try:
        load_bundle(place)
    except FerRayError:
        pass
    finally:
        shutil.rmtree(place.parent)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(_JSON)
def test_what_the_standard_library_writes_is_read_alike(document: object) -> None:
    try:
        text = json.dumps(document, allow_nan=False)
        text.encode("utf-8").decode("utf-8")
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except ValueError:
        return  # NaN, infinity or half a character: refused elsewhere
    assert parse_json(text.encode(), "x") == document


def test_strings_full_of_brackets_are_not_deep() -> None:
    text = json.dumps({"a": "[" * 1000 + '\\"' + "{" * 1000, "b": "\\" * 99})
    assert parse_json(text.encode(), "x") == json.loads(text)


def test_a_link_inside_the_bundle_is_followed(copy: Path) -> None:
    (copy / "config.json").rename(copy / "real.json")
    (copy / "config.json").symlink_to("real.json")
    load_bundle(copy)
