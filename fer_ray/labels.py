"""Expression names, their canonical order, and class maps.

Label *names* are the truth everywhere; an index means nothing without the list it points into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fer_ray.errors import UserError

EXPRESSIONS: tuple[str, ...] = (
    "angry",
    "disgust",
    "fear",
    "happy",
    "sad",
    "surprise",
    "neutral",
)
"""FER2013's own order (Goodfellow et al. 2013, arXiv 1307.0414), canonical in fer-ray."""

NAMED_MAPS: dict[str, dict[str, str | None]] = {
    "fer7": {name: name for name in EXPRESSIONS},
    "fer4": {
        "angry": "angry_disgust",
        "disgust": "angry_disgust",
        "fear": "sad_fear",
        "happy": "happy",
        "sad": "sad_fear",
        "surprise": "neutral_surprise",
        "neutral": "neutral_surprise",
    },
    "valence": {
        "angry": "negative",
        "disgust": "negative",
        "fear": "negative",
        "happy": "positive",
        "sad": "negative",
        "surprise": None,
        "neutral": "neutral",
    },
}
"""Class maps by name; None drops the class (surprise has no valence of its own)."""


@dataclass(frozen=True)
class ClassMap:
    """From the prepared data set's classes to the classes a network is trained on.

    Attributes:
        names: the new classes, in the order of their first old class.
        index: for each old class its new index, or -1 where the class is dropped.
    """

    names: tuple[str, ...]
    index: tuple[int, ...]


def class_map(
    classes: str | Mapping[str, str | None], source: tuple[str, ...] = EXPRESSIONS
) -> ClassMap:
    """Build the map named by `data.classes`.

    Args:
        classes: `fer7`, `fer4`, `valence`, or a partial map old name -> new name or None;
            names that the map leaves out stay as they are.
        source: the data set's class names, in its order.

    Raises:
        UserError: an unknown map, an old name the data set has not, or fewer than two classes left.
    """
    if isinstance(classes, str):
        if classes not in NAMED_MAPS:
            raise UserError(
                f"unknown class map {classes!r}; known: {', '.join(NAMED_MAPS)}",
                "Give one of these, or a map such as {disgust: angry, fear: null}.",
            )
        # fer7 means "as they are": it also fits a data set with classes of its own.
        mapping = {} if classes == "fer7" else NAMED_MAPS[classes]
    else:
        mapping = dict(classes)
    unknown = [name for name in mapping if name not in source]
    if unknown:
        raise UserError(
            f"class map names {', '.join(map(repr, unknown))}, "
            f"but the data set has {', '.join(source)}"
        )
    targets = [mapping.get(name, name) for name in source]
    names = tuple(dict.fromkeys(target for target in targets if target is not None))
    if len(names) < 2:
        raise UserError(f"class map leaves {len(names)} class(es); at least two are needed")
    index = tuple(-1 if target is None else names.index(target) for target in targets)
    return ClassMap(names, index)
