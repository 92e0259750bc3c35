"""Micro-batches without waiting: what has queued up while the network worked goes in next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fer_ray.bundle.predictor import BATCH_SIZE, Predictions, Predictor


@dataclass(frozen=True)
class Answer:
    """One image's row of a batch's predictions."""

    predictions: Predictions
    row: int

    @property
    def label_index(self) -> int:
        return int(self.predictions.probabilities[self.row].argmax())

    @property
    def uncertain(self) -> bool:
        return bool(self.predictions.probabilities[self.row].max() < self.predictions.threshold)

    @property
    def probabilities(self) -> list[float]:
        """By class, in the bundle's order."""
        return [float(value) for value in self.predictions.probabilities[self.row]]

    def ranked(self, top_k: int | None) -> list[dict[str, Any]]:
        """`[{"label", "score"}]`, best first."""
        return self.predictions.ranked(self.row, top_k)


@dataclass(frozen=True)
class _Waiting:
    pixels: npt.NDArray[np.uint8]
    answer: asyncio.Future[Answer]


class Batcher:
    """Runs a Predictor in one thread of its own, off the event loop.

    An idle network starts at once on what is there; no timer, so a lone request never waits.

    Args:
        predictor: at work.
        num_threads: of torch within that thread.
        max_images: of a batch.
        on_batch: told the number of images of each, from the event loop.
    """

    def __init__(
        self,
        predictor: Predictor,
        num_threads: int,
        max_images: int = BATCH_SIZE,
        on_batch: Callable[[int], None] = lambda num_images: None,
    ) -> None:
        self._predictor = predictor
        self._max_images = max_images
        self._on_batch = on_batch
        self._queue: deque[_Waiting] = deque()
        self._is_running = False
        # OpenMP counts threads for each calling thread: set it where the network runs.
        self._thread = ThreadPoolExecutor(
            1, "inference", initializer=torch.set_num_threads, initargs=(num_threads,)
        )

    async def submit(self, pixels: npt.NDArray[np.uint8]) -> Answer:
        """Classify one image, uint8 [H, W] decoded at `source_px`."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(pixels, loop.create_future())
        self._queue.append(waiting)
        if not self._is_running:
            self._is_running = True
            # At the next turn of the loop: images decoded by then join this batch.
            loop.call_soon(self._start, loop)
        return await waiting.answer

    def close(self) -> None:
        """Let go of the thread; nothing may be submitted any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_images:
            waiting = self._queue.popleft()
            if not waiting.answer.done():  # its client has not gone away
                batch.append(waiting)
        if not batch:
            self._is_running = False
            return
        self._on_batch(len(batch))
        work = loop.run_in_executor(self._thread, self._predict, [w.pixels for w in batch])
        work.add_done_callback(lambda done: self._finish(loop, batch, done))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        done: asyncio.Future[list[Answer | Exception]],
    ) -> None:
        error = done.exception() if not done.cancelled() else asyncio.CancelledError()
        outcomes = done.result() if error is None else [error] * len(batch)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(outcome, Answer):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)
        self._start(loop)

    def _predict(self, images: list[npt.NDArray[np.uint8]]) -> list[Answer | Exception]:
        """An outcome an image: where a batch fails, each is tried alone."""
        try:
            predictions = self._predictor.predict(np.stack(images))
        except Exception as error:  # noqa: BLE001 - each caller gets it, as an answer of the server
            if len(images) == 1:
                return [error]
            return [outcome for image in images for outcome in self._predict([image])]
        return [Answer(predictions, row) for row in range(len(images))]
