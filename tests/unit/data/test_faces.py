"""The sample faces: determinism, class balance, and pictures that show their expression."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_ray.data.faces import ACTION_UNITS, EXPRESSION_COUNTS, EXPRESSION_UNITS, draw_faces
from fer_ray.labels import EXPRESSIONS

Faces = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def faces() -> Faces:
    return draw_faces(1500, seed=0)


def mean_face(faces: Faces, expression: str) -> np.ndarray:
    """The mean picture [48, 48] of a class; pose, identity and light average out."""
    images, labels = faces
    return images[labels == EXPRESSIONS.index(expression)].mean(axis=0)


def test_shapes_types_and_range(faces: Faces) -> None:
    images, labels = faces
    assert images.shape == (1500, 48, 48)
    assert images.dtype == np.uint8
    assert labels.shape == (1500,)
    assert labels.dtype == np.int64
    assert images.min() < 20
    assert images.max() > 235
    assert images.std(axis=(1, 2)).min() > 5, "every picture shows something"


def test_a_seed_repeats_its_faces(faces: Faces) -> None:
    images, labels = draw_faces(1500, seed=0)
    assert np.array_equal(images, faces[0])
    assert np.array_equal(labels, faces[1])


def test_another_seed_draws_other_faces(faces: Faces) -> None:
    images, labels = draw_faces(200, seed=1)
    assert not np.array_equal(labels, faces[1][:200])
    seen = {image.tobytes() for image in faces[0]}
    assert not any(image.tobytes() in seen for image in images)


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 137])
def test_a_face_does_not_depend_on_the_count(faces: Faces, count: int) -> None:
    images, labels = draw_faces(count, seed=0)
    assert images.shape == (count, 48, 48)
    assert np.array_equal(images, faces[0][:count])
    assert np.array_equal(labels, faces[1][:count])


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`count >= 0` must hold, but got count=-1"):
        draw_faces(-1, seed=0)


def test_classes_are_as_imbalanced_as_fer2013(faces: Faces) -> None:
    counts = np.bincount(faces[1], minlength=len(EXPRESSIONS))
    expected = 1500 * EXPRESSION_COUNTS / EXPRESSION_COUNTS.sum()
    assert np.abs(counts - expected).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_fifty_faces_hold_every_class(seed: int) -> None:
    _, labels = draw_faces(50, seed)
    assert set(labels) == set(range(len(EXPRESSIONS)))


def test_the_table_names_known_expressions_and_units() -> None:
    assert tuple(EXPRESSION_UNITS) == EXPRESSIONS
    for units in EXPRESSION_UNITS.values():
        assert set(units) <= set(ACTION_UNITS)
        assert all(0 < intensity <= 1 for intensity in units.values())


BROWS, MOUTH = slice(8, 22), slice(30, 46)  # rows of the picture


@pytest.mark.parametrize(
    ("one", "other", "moving", "still"),
    [
        ("happy", "sad", MOUTH, BROWS),
        ("surprise", "neutral", MOUTH, BROWS),
        ("angry", "neutral", BROWS, MOUTH),
        ("sad", "angry", BROWS, MOUTH),
    ],
)
def test_expressions_differ_most_where_their_muscles_move(
    faces: Faces, one: str, other: str, moving: slice, still: slice
) -> None:
    difference = np.abs(mean_face(faces, one) - mean_face(faces, other))[:, 12:36]
    assert difference[moving].mean() > 1.4 * difference[still].mean()


def test_a_linear_classifier_learns_something_but_not_enough(faces: Faces) -> None:
    fresh_images, fresh_labels = draw_faces(600, seed=1)
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=1e-3, tol=1e-2, max_iter=1000)
    )
    classifier.fit(faces[0][:1000].reshape(1000, -1), faces[1][:1000])
    accuracy = classifier.score(fresh_images.reshape(600, -1), fresh_labels)
    assert 0.25 < accuracy < 0.62
