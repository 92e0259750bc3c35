"""Micro-batches without waiting: what has queued up while the network worked goes in next."""

from __future__ import annotations

import asyncio
import itertools
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


Pixels = npt.NDArray[np.uint8]
Outcome = Answer | Exception


@dataclass(frozen=True)
class _Waiting:
    """Images that came together and go into one batch."""

    images: list[Pixels]
    outcomes: asyncio.Future[list[Outcome]]


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

    async def submit_each(self, images: list[Pixels]) -> list[Answer]:
        """Classify images that came together, in order; they cost one turn of the loop."""
        size = self._max_images
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        outcomes = await asyncio.gather(*(self._enqueue(part) for part in parts))
        answers: list[Answer] = []
        for outcome in (outcome for part in outcomes for outcome in part):
            if isinstance(outcome, Exception):
                raise outcome
            answers.append(outcome)
        return answers

    def _enqueue(self, images: list[Pixels]) -> asyncio.Future[list[Outcome]]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(images, loop.create_future())
        self._queue.append(waiting)
        if not self._is_running:
            self._is_running = True
            # At the next turn of the loop: images decoded by then join this batch.
            loop.call_soon(self._start, loop)
        return waiting.outcomes

    def close(self) -> None:
        """Let go of the thread; nothing may be submitted any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[_Waiting] = []
        room = self._max_images
        while self._queue and len(self._queue[0].images) <= room:
            waiting = self._queue.popleft()
            if not waiting.outcomes.done():  # its client has not gone away
                batch.append(waiting)
                room -= len(waiting.images)
        if not batch:
            self._is_running = False
            return
        images = [pixels for waiting in batch for pixels in waiting.images]
        self._on_batch(len(images))
        work = loop.run_in_executor(self._thread, self._predict, images)
        work.add_done_callback(lambda done: self._finish(loop, batch, done))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        done: asyncio.Future[list[Outcome]],
    ) -> None:
        error = done.exception() if not done.cancelled() else asyncio.CancelledError()
        outcomes = iter(done.result() if error is None else ())
        for waiting in batch:
            own = list(itertools.islice(outcomes, len(waiting.images)))
            if waiting.outcomes.done():
                continue
            if error is None:
                waiting.outcomes.set_result(own)
            else:
                waiting.outcomes.set_exception(error)
        self._start(loop)

    def _predict(self, images: list[Pixels]) -> list[Outcome]:
        """An outcome an image: where a batch fails, each is tried alone."""
        try:
            predictions = self._predictor.predict(np.stack(images))
        except Exception as error:  # noqa: BLE001 - each caller gets it, as an answer of the server
            if len(images) == 1:
                return [error]
            return [outcome for image in images for outcome in self._predict([image])]
        return [Answer(predictions, row) for row in range(len(images))]
