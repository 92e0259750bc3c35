"""Class maps: names, order, merging and dropping."""

import pytest

from fer_ray.errors import UserError
from fer_ray.labels import EXPRESSIONS, class_map


def test_the_canonical_order_is_that_of_fer2013() -> None:
    assert EXPRESSIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_fer7_changes_nothing() -> None:
    mapping = class_map("fer7")
    assert mapping.names == EXPRESSIONS
    assert mapping.index == tuple(range(7))


def test_fer7_fits_a_data_set_with_classes_of_its_own() -> None:
    assert class_map("fer7", ("cat", "dog")).names == ("cat", "dog")


def test_fer4_merges_pairs_in_the_order_of_their_first_class() -> None:
    mapping = class_map("fer4")
    assert mapping.names == ("angry_disgust", "sad_fear", "happy", "neutral_surprise")
    assert mapping.index == (0, 0, 1, 2, 1, 3, 3)


def test_valence_drops_surprise() -> None:
    mapping = class_map("valence")
    assert mapping.names == ("negative", "positive", "neutral")
    assert mapping.index == (0, 0, 0, 1, 0, -1, 2)


def test_a_partial_map_renames_merges_drops_and_leaves_the_rest() -> None:
    mapping = class_map({"disgust": "angry", "fear": None, "happy": "joy"})
    assert mapping.names == ("angry", "joy", "sad", "surprise", "neutral")
    assert mapping.index == (0, 0, -1, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("fer8", ["'fer8'", "fer7, fer4, valence"]),
        ({"rage": "angry"}, ["'rage'", "angry"]),
        (dict.fromkeys(EXPRESSIONS[1:]), ["leaves 1 class"]),
        (dict.fromkeys(EXPRESSIONS, "one"), ["leaves 1 class"]),
    ],
)
def test_a_wrong_map_is_refused(classes: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        class_map(classes)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)


def test_a_named_map_needs_its_classes() -> None:
    with pytest.raises(UserError, match="class map names"):
        class_map("fer4", ("cat", "dog"))
