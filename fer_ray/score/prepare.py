"""From items to pixels: fetch, decode, find faces. Needs no network and no torch."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fer_ray.errors import DecodeError, UnfinishedError
from fer_ray.images.decode import decode
from fer_ray.images.detect import MARGIN_FRAC, Find, build_detector, cut_faces, kind_of
from fer_ray.score.fetch import Fault, Fetcher
from fer_ray.score.items import Item
from fer_ray.score.options import RowOptions
from fer_ray.score.rows import Seed, skeleton
from fer_ray.score.transient import Patience

Pixels = npt.NDArray[np.uint8]

_TASK_ITEMS = 16
"""Local files a thread takes at once: a future a tiny file would cost as much as its decoding."""


@dataclass(frozen=True)
class Recipe:
    """How items become pixels; travels to the processes that do it.

    Attributes:
        size_px: side at which the bundle wants images decoded.
        class_names: of the bundle, for true labels.
        options: what rows hold.
        storages: bucket -> the source's address, keys included: never written down.
        give_up_after_s: see `Patience`.
        num_threads: for local files.
        reads_in_flight: for object storage and HTTP.
    """

    size_px: int
    class_names: tuple[str, ...]
    options: RowOptions
    storages: dict[str, str]
    give_up_after_s: float
    num_threads: int
    reads_in_flight: int


@dataclass(frozen=True)
class Prepared:
    """A chunk of items, ready for the network.

    Attributes:
        rows: everything of the rows but the answers.
        pixels: uint8 [M, S, S], of the rows whose status is `ok`, in order.
    """

    rows: pa.Table
    pixels: Pixels


class Preparer:
    """Fetches and decodes chunks with threads; holds the connections and the detector."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._fetcher = Fetcher(recipe.storages, Patience(recipe.give_up_after_s))
        options = recipe.options
        self._find: Find | None = None
        self._margin_frac = 0.0
        if options.faces != "none":
            self._find = build_detector(options.faces)
            own = MARGIN_FRAC[kind_of(options.faces)]
            given = options.face_margin_frac
            self._margin_frac = own if given is None else given

    def stream(
        self, chunks: Iterator[Sequence[Item]], kept: pa.Schema, ahead: int = 2
    ) -> Iterator[Prepared | UnfinishedError]:
        """Prepare chunks in order, some ahead of whoever takes them.

        Args:
            chunks: items of one job.
            kept: of their values.
            ahead: chunks worked on beside the one that is waited for; bounds memory.

        Yields:
            each chunk prepared, or the transient fault that did not pass.
        """
        waiting: deque[list[Future[list[tuple[Seed, Pixels | None]]]]] = deque()
        # OpenCV's detectors are not for several threads at once.
        alone = self._find is not None
        with (
            ThreadPoolExecutor(1 if alone else self.recipe.num_threads) as near,
            ThreadPoolExecutor(1 if alone else self.recipe.reads_in_flight) as far,
            warnings.catch_warnings(),
            contextlib.ExitStack() as stack,
        ):
            # Once for all threads: the filters are the process's, not a thread's.
            warnings.simplefilter("ignore")
            stack.callback(self._stop, waiting)
            self._fetcher.stopped.clear()
            for chunk in chunks:
                is_local = all(item.path.startswith("/") for item in chunk)
                waiting.append(self._submit(near if is_local else far, chunk, is_local))
                if len(waiting) > ahead:
                    yield self._gather(waiting.popleft(), kept)
            while waiting:
                yield self._gather(waiting.popleft(), kept)

    def _stop(self, waiting: deque[list[Future[list[tuple[Seed, Pixels | None]]]]]) -> None:
        """End what is under way, where whoever takes the chunks takes no more."""
        self._fetcher.stopped.set()
        for futures in waiting:
            for future in futures:
                future.cancel()

    def _submit(
        self, pool: ThreadPoolExecutor, chunk: Sequence[Item], is_local: bool
    ) -> list[Future[list[tuple[Seed, Pixels | None]]]]:
        step = _TASK_ITEMS if is_local else 1
        return [
            pool.submit(self._prepare, chunk[start : start + step])
            for start in range(0, len(chunk), step)
        ]

    def _gather(
        self, futures: list[Future[list[tuple[Seed, Pixels | None]]]], kept: pa.Schema
    ) -> Prepared | UnfinishedError:
        try:
            pairs = [pair for future in futures for pair in future.result()]
        except UnfinishedError as error:
            for future in futures:
                future.cancel()
            return error
        size = self.recipe.size_px
        pixels = [image for _, image in pairs if image is not None]
        stacked = np.stack(pixels) if pixels else np.zeros((0, size, size), np.uint8)
        seeds = [seed for seed, _ in pairs]
        return Prepared(
            skeleton(seeds, self.recipe.class_names, self.recipe.options, kept), stacked
        )

    def _prepare(self, items: Sequence[Item]) -> list[tuple[Seed, Pixels | None]]:
        return [pair for item in items for pair in self._one(item)]

    def _one(self, item: Item) -> list[tuple[Seed, Pixels | None]]:
        """The rows of one item; several where several faces are found."""
        data = self._fetcher.fetch(item)
        if isinstance(data, Fault):
            return [(Seed(item, fault=data), None)]
        options = self.recipe.options
        sha256 = hashlib.sha256(data).digest() if options.hash else None
        try:
            if self._find is not None:
                return self._faces(item, data, self._find, sha256)
            image = decode(data, self.recipe.size_px, options.max_pixels)
        except DecodeError as error:
            fault = Fault(error.error_type, error.message)
            return [(Seed(item, fault=fault, sha256=sha256), None)]
        seed = Seed(
            item,
            width_px=image.width_px,
            height_px=image.height_px,
            has_pixels=True,
            sha256=sha256,
        )
        return [(seed, image.pixels)]

    def _faces(
        self, item: Item, data: bytes, find: Find, sha256: bytes | None
    ) -> list[tuple[Seed, Pixels | None]]:
        options = self.recipe.options
        cut, width, height = cut_faces(
            data, find, self.recipe.size_px, self._margin_frac, options.max_pixels
        )
        if not cut:
            return [(Seed(item, 0, None, width, height, sha256=sha256), None)]
        return [
            (Seed(item, index, None, width, height, each.face, True, sha256), each.pixels)
            for index, each in enumerate(cut)
        ]
