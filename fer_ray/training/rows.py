"""A rank's training rows: in the device's memory, or streamed where they do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_ray.data.prepared import Split
from fer_ray.data.streamed import StreamedSplit
from fer_ray.images.preprocess import Preprocess


@dataclass(frozen=True)
class Batch:
    """Rows of one step, on the device.

    Attributes:
        images: uint8 [B, S, S], through the static preprocessing.
        labels: int64 [B].
        votes: float32 [B, C], rows sum to 1; None where labels are hard.
    """

    images: Tensor
    labels: Tensor
    votes: Tensor | None

    def __len__(self) -> int:
        return len(self.labels)


class Rows(Protocol):
    """What the loop asks of a rank's rows."""

    def __len__(self) -> int: ...

    def label_counts(self, num_classes: int) -> Tensor:
        """int64 [C] on the device."""
        ...

    def batches(self, num_batches: int, seed: int) -> Iterator[Batch]:
        """Every row once, in an order of the seed, in batches that differ by at most one row."""
        ...


def rows_of(train: Split | StreamedSplit, preprocess: Preprocess, device: torch.device) -> Rows:
    """Rows in memory or streamed, as the data came."""
    if isinstance(train, Split):
        return MemoryRows(train, preprocess, device)
    return StreamedRows(train, preprocess, device)


class MemoryRows:
    """One uint8 tensor on the device; an epoch is an index into it."""

    def __init__(self, split: Split, preprocess: Preprocess, device: torch.device) -> None:
        self._all = _on_device(split, preprocess, device)

    def __len__(self) -> int:
        return len(self._all)

    def label_counts(self, num_classes: int) -> Tensor:
        return torch.bincount(self._all.labels, minlength=num_classes)

    def batches(self, num_batches: int, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).to(self._all.labels.device)
        for index in order.tensor_split(num_batches):
            votes = None if self._all.votes is None else self._all.votes[index]
            yield Batch(self._all.images[index], self._all.labels[index], votes)


class StreamedRows:
    """Rows read again every epoch, shuffled within a buffer of some thousand rows."""

    def __init__(self, split: StreamedSplit, preprocess: Preprocess, device: torch.device) -> None:
        self._split, self._preprocess, self._device = split, preprocess, device

    def __len__(self) -> int:
        return len(self._split)

    def label_counts(self, num_classes: int) -> Tensor:
        return torch.from_numpy(self._split.label_counts).to(self._device)

    def batches(self, num_batches: int, seed: int) -> Iterator[Batch]:
        size, longer = divmod(len(self), num_batches)
        waiting: list[Split] = []
        chunks = self._split.chunks(seed)
        for number in range(num_batches):
            wanted = size + (number < longer)
            while sum(len(chunk) for chunk in waiting) < wanted:
                waiting.append(next(chunks))
            whole = _joined(waiting)
            waiting = [_part(whole, wanted, len(whole))]
            yield _on_device(_part(whole, 0, wanted), self._preprocess, self._device)


def shared_tensor(array: npt.NDArray[Any]) -> Tensor:
    """A tensor on an array's own memory, which other processes may share: to be read only."""
    with warnings.catch_warnings():
        # Arrays of Ray's object store are not writable, and torch warns of that once.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _on_device(split: Split, preprocess: Preprocess, device: torch.device) -> Batch:
    images = preprocess.static(shared_tensor(split.images))
    labels = torch.from_numpy(split.labels.astype(np.int64))
    votes = None if split.votes is None else shared_tensor(split.votes).to(device)
    return Batch(images.to(device), labels.to(device), votes)


def _joined(splits: list[Split]) -> Split:
    votes = [split.votes for split in splits if split.votes is not None]
    return Split(
        np.concatenate([split.images for split in splits]),
        np.concatenate([split.labels for split in splits]),
        np.concatenate(votes) if votes else None,
    )


def _part(split: Split, start: int, end: int) -> Split:
    votes = None if split.votes is None else split.votes[start:end]
    return Split(split.images[start:end], split.labels[start:end], votes)
