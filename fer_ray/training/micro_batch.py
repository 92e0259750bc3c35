"""A batch in parts, where the device's memory does not hold the whole: gradients add up.

Each row weighs the same whatever part it is in, so the gradient is that of the whole batch, but for
batch norm, which normalises each part by itself. Dropout draws anew after a failed attempt.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import torch
from torch import Tensor

from fer_ray.errors import FerRayError

_WORDS_FOR_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""CUDA has an error of its own for it; MPS, the CPU and cuBLAS a plain RuntimeError."""


class MicroBatches:
    """Cuts batches into equal parts, and halves the parts when memory runs out.

    Args:
        say: told of each halving.

    Attributes:
        max_rows: rows that fit at once; None until memory ran out.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.max_rows: int | None = None
        self._say = say

    def parts(self, num_rows: int) -> list[slice]:
        """Parts of at most `max_rows` rows, in order; their sizes differ by at most one."""
        count = 1 if self.max_rows is None else math.ceil(num_rows / self.max_rows)
        ends = [num_rows * number // count for number in range(count + 1)]
        return [slice(ends[number], ends[number + 1]) for number in range(count)]

    def largest(self, num_rows: int) -> int:
        """Rows of the largest part."""
        count = len(self.parts(num_rows))
        return -(-num_rows // count)

    def run(
        self, num_rows: int, start: Callable[[], None], part: Callable[[slice], Tensor]
    ) -> Tensor:
        """Do a batch part by part; from its start again, in smaller parts, when memory runs out.

        Args:
            num_rows: of the batch.
            start: forgets what parts of the batch have added so far.
            part: does some rows; what it gives is summed.

        Raises:
            FerRayError: not even one row fits.
        """
        while True:
            start()
            total = self._attempt(self.parts(num_rows), part)
            if total is not None:
                return total
            self._halve(num_rows)

    def _attempt(self, parts: list[slice], part: Callable[[slice], Tensor]) -> Tensor | None:
        try:
            total = part(parts[0])
            for rows in parts[1:]:
                total = total + part(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        return total

    def _halve(self, num_rows: int) -> None:
        """Outside of the `except`, whose traceback would hold on to the memory."""
        largest = self.largest(num_rows)
        if largest == 1:
            raise FerRayError(
                "the device's memory does not hold the training of this network on one image",
                "Use a smaller network or image, or a device with more memory.",
            )
        self.max_rows = largest // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._say(
            f"out of memory with {largest} images at once: going on with {self.max_rows} at once, "
            f"their gradients added up to the same batch of {num_rows}"
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device's memory is used up."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _WORDS_FOR_NO_MEMORY)
