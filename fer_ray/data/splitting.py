"""Splits for sources that have none: deterministic, stratified, copies of an image kept together.

A split is a pure function of what is divided, not of its order: within each class the images are
sorted by the sha256 of their pixels, the first of them are validation, the next test, the rest
train, by quotas that are exact for every class but for images that come more than once. Adding
images moves only those at the borders. With groups (`--group-by`), groups that share an image are
joined first; then the largest goes first to the split that lacks most of its classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fer_ray.data.prepared import SPLITS
from fer_ray.errors import UserError

DEFAULT_RATIOS = (0.8, 0.1, 0.1)
"""train, validation, test."""
CARVED_RATIOS = (0.9, 0.1, 0.0)
"""A tenth of train becomes validation where a source has no validation of its own."""

_LABEL_BITS = 7


@dataclass(frozen=True)
class SplitPlan:
    """What `--splits` asks for.

    Attributes:
        official_only: nothing may be made.
        ratios: train, validation and test; None: keep the source's own where it has them.
    """

    official_only: bool
    ratios: tuple[float, float, float] | None


def parse_splits(text: str) -> SplitPlan:
    """Read `auto`, `official` or ratios such as `80:10:10`.

    Raises:
        UserError: none of these, or ratios without train or validation.
    """
    if text in ("auto", "official"):
        return SplitPlan(text == "official", None)
    try:
        train, validation, test = (float(part) for part in text.split(":"))
    except ValueError:
        train = validation = test = float("nan")
    total = train + validation + test
    if not (0 < train < np.inf and 0 < validation < np.inf and 0 <= test < np.inf):
        raise UserError(
            f"--splits is auto, official or TRAIN:VALIDATION:TEST such as 80:10:10, "
            f"but got {text!r}",
            "Train and validation must be above 0; test may be 0.",
        )
    return SplitPlan(False, (train / total, validation / total, test / total))


@dataclass
class Images:
    """The distinct images seen, 16 bytes of sha256 each, and those that may be divided."""

    total: int = 0
    _units: dict[bytes, int] = field(default_factory=dict)
    """digest -> copies * 128 + smallest label among those to divide; 0 with nothing to divide.
    Small integers are shared, so that an image that comes once costs no integer of its own."""

    def add(self, digest: bytes, label: int, *, divisible: bool) -> None:
        """Count an image; `label` is its class index, below 128."""
        self.total += 1
        before = self._units.setdefault(digest, 0)
        if divisible:
            copies, smallest = before >> _LABEL_BITS, before & (2**_LABEL_BITS - 1)
            smallest = min(smallest, label) if copies else label
            self._units[digest] = (copies + 1) << _LABEL_BITS | smallest

    @property
    def surplus(self) -> int:
        """Images beyond the first of each."""
        return self.total - len(self._units)

    def divide(self, ratios: tuple[float, float, float]) -> dict[bytes, int]:
        """Give each divisible image, with all its copies, an index into `SPLITS`."""
        classes: dict[int, list[bytes]] = defaultdict(list)
        sizes: dict[int, int] = defaultdict(int)
        for digest, unit in self._units.items():
            if unit:
                label = unit & (2**_LABEL_BITS - 1)
                classes[label].append(digest)
                sizes[label] += unit >> _LABEL_BITS
        found: dict[bytes, int] = {}
        for label, digests in classes.items():
            quotas = _quotas(sizes[label], ratios)
            # Validation first, then test; train takes what is left.
            borders = [(1, quotas[1]), (2, quotas[1] + quotas[2])]
            seen = 0
            for digest in sorted(digests):
                copies = self._units[digest] >> _LABEL_BITS
                middle = seen + copies / 2
                found[digest] = next((split for split, end in borders if middle < end), 0)
                seen += copies
        return found


def _quotas(size: int, ratios: tuple[float, float, float]) -> tuple[int, int, int]:
    """Images a split: rounded, train takes the rest; at least one each where there are enough."""
    wanted = [int(size * ratio + 0.5) for ratio in ratios[1:]]
    if size >= 3:
        wanted = [
            max(n, 1) if ratio > 0 else 0 for n, ratio in zip(wanted, ratios[1:], strict=True)
        ]
    return max(size - sum(wanted), 0), wanted[0], wanted[1]


@dataclass
class Groups:
    """Groups and the images they share.

    Args:
        num_classes: of the labels.
    """

    num_classes: int
    _numbers: dict[str, int] = field(default_factory=dict)
    _parents: list[int] = field(default_factory=list)
    _counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _first_with: dict[bytes, int] = field(default_factory=dict)
    _splits: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, group: str, digest: bytes, label: int, split: str | None) -> None:
        """Count an image of a group; `split` is the source's own."""
        number = self._numbers.setdefault(group, len(self._parents))
        if number == len(self._parents):
            self._parents.append(number)
            self._counts.append(np.zeros(self.num_classes, np.int64))
        self._counts[number][label] += 1
        other = self._root(self._first_with.setdefault(digest, number))
        own = self._root(number)
        self._parents[max(own, other)] = min(own, other)
        if split is not None:
            self._splits[group].add(split)

    def straddling(self) -> list[tuple[str, list[str]]]:
        """Groups that stand in more than one of the source's own splits, with these."""
        return sorted((g, sorted(found)) for g, found in self._splits.items() if len(found) > 1)

    def divide(self, ratios: tuple[float, float, float]) -> dict[str, int]:
        """Give each group an index into `SPLITS`."""
        members: dict[int, list[str]] = defaultdict(list)
        sums: dict[int, npt.NDArray[np.int64]] = {}
        for group, number in self._numbers.items():
            root = self._root(number)
            members[root].append(group)
            sums[root] = sums.get(root, 0) + self._counts[number]
        names = {root: min(groups) for root, groups in members.items()}
        total = np.sum(list(sums.values()), axis=0)
        missing = np.array(ratios)[:, None] * total
        weight = 1.0 / np.maximum(total, 1)
        usable = [index for index, ratio in enumerate(ratios) if ratio > 0]
        found: dict[str, int] = {}
        for root in sorted(sums, key=lambda root: (-int(sums[root].sum()), names[root])):
            lack = [float((missing[index] * weight * sums[root]).sum()) for index in usable]
            # Relative to what the split is to hold, so that small splits are not left empty.
            lack = [value / ratios[index] for value, index in zip(lack, usable, strict=True)]
            split = usable[int(np.argmax(lack))]
            missing[split] -= sums[root]
            found.update(dict.fromkeys(members[root], split))
        return found

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


def spell(ratios: tuple[float, float, float]) -> str:
    """`train 80 %, validation 10 %, test 10 %`."""
    pairs: Iterable[tuple[str, float]] = zip(SPLITS, ratios, strict=True)
    return ", ".join(f"{name} {100 * ratio:.4g} %" for name, ratio in pairs if ratio > 0)
