"""Names of classes and splits, and which number stands for which class.

Every form counts differently: FER2013's CSV starts with angry and ends with neutral, folders and
Hugging Face sort by name (neutral 4, sad 5, surprise 6), RAF-DB starts at 1 with surprise. So a
number is turned into a name in one place, and the decision is told.
"""

from __future__ import annotations

from fer_ray.errors import UserError
from fer_ray.labels import EXPRESSIONS

MAX_CLASSES = 127
"""Class indices are stored as int8."""

SPLIT_OF_PREFIX = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
"""FER2013's own words, in the Usage column and before the number in file names."""

SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    **{word.lower(): split for word, split in SPLIT_OF_PREFIX.items()},
}
"""Folders, first words of Parquet names and values of a Usage column, in lower case."""

SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
_KNOWN = {**{name: name for name in EXPRESSIONS}, **SYNONYMS}


class UnknownLabelError(LookupError):
    """A label that no rule names; the message says why, without the place."""


class Labels:
    """Turns what a source says of a class, name or number, into a class name.

    Args:
        order: `auto`, `fer2013`, `alphabetical`, or names in the order of their numbers, with
            commas between; `-` stands for a number that does not occur.
        classes: None for the seven expressions; else see `parse_classes`.

    Attributes:
        class_names: of the prepared set, in its order.
        dropped: images of classes that the user left out.

    Raises:
        UserError: an order or classes that cannot be.
    """

    def __init__(self, order: str = "auto", classes: str | None = None) -> None:
        self.class_names, self._names = parse_classes(classes)
        self._asked = _parse_order(order, self.class_names, self._names)
        self._asked_as = order
        self._default: tuple[str, ...] | None = None
        self._why = ""
        self._saw_numbers = False
        self.dropped = 0

    def default(self, order: tuple[str, ...] | None, why: str) -> None:
        """The reader's own order of numbers, for `auto`; None where the form tells none."""
        self._default, self._why = order, why

    def default_alphabetical(self, why: str) -> None:
        """Numbers count the sorted names."""
        self.default(tuple(sorted(self.class_names)), why)

    def knows(self, name: str) -> bool:
        """Whether it is the name of a class (or one to leave out)."""
        return name.lower() in self._names

    def of(self, value: str) -> str | None:
        """Class name of a label; None where the user left the class out.

        Raises:
            UnknownLabelError: no class of that name or number.
        """
        text = value.strip()
        if text.lower() in self._names:
            name = self._names[text.lower()]
        else:
            name = self._of_number(text)
        if name is None:
            self.dropped += 1
        return name

    def _of_number(self, text: str) -> str | None:
        if not text.isascii() or not text.isdigit():
            raise UnknownLabelError(
                f"has label {text[:40]!r}; known: {', '.join(self.class_names)}"
            )
        order = self._order
        if order is None:
            raise UnknownLabelError(f"has label number {text[:40]}, and no --label-order tells it")
        number = int(text[:9])
        if number >= len(order) or order[number] == "-":
            raise UnknownLabelError(f"has label number {text[:40]}; known: {_spell(order)}")
        self._saw_numbers = True
        name = order[number]
        if name.lower() not in self._names:
            raise UnknownLabelError(
                f"has label number {text[:40]} = {name!r}; known: {', '.join(self.class_names)}"
            )
        return self._names[name.lower()]

    @property
    def _order(self) -> tuple[str, ...] | None:
        return self._asked if self._asked is not None else self._default

    @property
    def decision(self) -> str:
        """What the labels of the source were taken for, and why."""
        if not self._saw_numbers or self._order is None:
            unused = "" if self._asked is None else " (so --label-order had nothing to do)"
            return f"by name: the source carries class names, no order is needed{unused}"
        if self._asked is None:
            return f"{_spell(self._order)}: {self._why}"
        against = ""
        if self._default is not None and self._default != self._asked:
            against = f"; auto would have taken {_spell(self._default)}: {self._why}"
        return f"{_spell(self._asked)}: asked for with --label-order {self._asked_as}{against}"


def parse_classes(text: str | None) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Read `--classes`.

    Items with commas between: `name` makes it a class of the set; `folder=class` reads a folder
    as that class; `folder=` leaves its images out. Maps to known expressions alone add to the
    seven; as soon as a name stands alone or a class is new, the named classes are all there are.

    Returns:
        class names (known expressions first, in canonical order), and lower-case name -> class.

    Raises:
        UserError: an empty item, or fewer than 2 or more than 127 classes.
    """
    if text is None:
        return EXPRESSIONS, dict(_KNOWN)
    mapping: dict[str, str | None] = {}
    whole = False
    for item in text.split(","):
        folder, equals, target = (part.strip() for part in item.partition("="))
        if not folder:
            raise UserError(
                f"--classes has the item {item!r}; each is NAME or FOLDER=CLASS, but got {text!r}"
            )
        name = target if equals else folder
        known = _KNOWN.get(name.lower(), name)
        mapping[folder.lower()] = known or None
        whole = whole or not equals or (known != "" and known not in EXPRESSIONS)
    if not whole:
        return EXPRESSIONS, {**_KNOWN, **mapping}
    targets = dict.fromkeys(name for name in mapping.values() if name is not None)
    names = tuple(name for name in EXPRESSIONS if name in targets)
    names += tuple(name for name in targets if name not in EXPRESSIONS)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"--classes names {len(names)} class(es), but 2..{MAX_CLASSES} are possible",
            "Name all classes of the set: a name alone, or a new one, replaces the seven.",
        )
    accepted: dict[str, str | None] = {k: v for k, v in _KNOWN.items() if v in names}
    accepted.update({name.lower(): name for name in names})
    return names, {**accepted, **mapping}


def _parse_order(
    text: str, class_names: tuple[str, ...], names: dict[str, str | None]
) -> tuple[str, ...] | None:
    if text == "auto":
        return None
    if text == "fer2013":
        return EXPRESSIONS
    if text == "alphabetical":
        return tuple(sorted(class_names))
    order = tuple(item.strip() for item in text.split(","))
    unknown = [name for name in order if name != "-" and name.lower() not in names]
    if unknown or len(order) < 2:
        raise UserError(
            f"--label-order is auto, fer2013, alphabetical or a list of names, but got {text!r}"
            + (f" with {', '.join(map(repr, unknown))}" if len(order) > 1 else ""),
            f"Known classes: {', '.join(class_names)}; `-` stands for a number that is not used.",
        )
    return tuple(name if name == "-" else str(names[name.lower()] or name) for name in order)


def _spell(order: tuple[str, ...]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(order) if name != "-")


def split_of_name(name: str) -> str | None:
    """Split that a file name begins with (`train-00000-of-00001.parquet`), or None."""
    for mark in ("-", ".", "_"):
        name = name.split(mark, 1)[0]
    return SPLIT_OF_WORD.get(name.lower())
