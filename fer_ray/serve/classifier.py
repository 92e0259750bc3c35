"""One Predictor behind an event loop: decoding in a pool, inference in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DecodeError
from fer_ray.images.decode import Decoded
from fer_ray.serve.batcher import Answer, Batcher
from fer_ray.serve.bodies import image_bytes
from fer_ray.serve.limits import Limits
from fer_ray.serve.measures import Drift, Measures, validation_shares
from fer_ray.serve.problems import RefusedError, refused_by_decoder


class Classifier:
    """Classifies images of requests.

    Args:
        predictor: checked by its golden answers when it was made.
        num_threads: decoding, and of torch.
        max_pixels: of an image; more are refused before any is decoded.
        measures: told of each image.
    """

    def __init__(
        self,
        predictor: Predictor,
        num_threads: int,
        max_pixels: int = Limits.image_pixels,
        measures: Measures | None = None,
    ) -> None:
        self.predictor = predictor
        self._max_pixels = max_pixels
        self.measures = measures or Measures()
        self.drift = Drift(predictor.class_names, validation_shares(predictor.bundle))
        self._decoders = ThreadPoolExecutor(num_threads, "decode")
        self._batcher = Batcher(predictor, num_threads, on_batch=self.measures.batch.observe)
        self._num_users = 0

    async def answer(self, image: bytes | str) -> Answer:
        """Classify one image.

        Args:
            image: a file, or base64 text of one.

        Raises:
            RefusedError: the image or its base64 is wrong.
        """
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._decoders, self._decode, image)
        is_decoded = time.perf_counter()
        answer = await self._batcher.submit(decoded.pixels)
        self.measures.stage("decode", is_decoded - began)
        self.measures.stage("classify", time.perf_counter() - is_decoded)
        index = answer.label_index
        self.measures.answered(self.predictor.class_names[index], uncertain=answer.uncertain)
        self.drift.add(index)
        return answer

    async def classify(self, image: bytes | str, top_k: int | None) -> dict[str, Any]:
        """One image to `predictions` and `uncertain`.

        Args:
            image: a file, or base64 text of one.
            top_k: None is all classes.

        Raises:
            RefusedError: the image or its base64 is wrong.
        """
        answer = await self.answer(image)
        return {"predictions": answer.ranked(top_k), "uncertain": answer.uncertain}

    async def classify_each(
        self, images: list[bytes | str], top_k: int | None
    ) -> list[dict[str, Any]]:
        """Several images, in order; a refused one is `{"problem": ...}` and hinders no other."""

        async def one(image: bytes | str) -> dict[str, Any]:
            try:
                return await self.classify(image, top_k)
            except RefusedError as refusal:
                return {"problem": refusal.document()}

        return await asyncio.gather(*(one(image) for image in images))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep it open until the caller has its answers; entered in the turn that looked it up."""
        self._num_users += 1
        try:
            yield
        finally:
            self._num_users -= 1

    async def close_when_idle(self) -> None:
        """Let go of the threads once nobody uses it."""
        while self._num_users:
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Let go of the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    def _decode(self, image: bytes | str) -> Decoded:
        data = image_bytes(image)
        try:
            return self.predictor.decode(data, self._max_pixels)
        except DecodeError as error:
            raise refused_by_decoder(error) from error


class Slot:
    """What is served just now; None until a model is loaded and its golden check passed."""

    def __init__(self, classifier: Classifier | None = None) -> None:
        self.classifier: Classifier | None = None
        if classifier is not None:
            self.put(classifier)

    def put(self, classifier: Classifier) -> Classifier | None:
        """Serve this one from now on; gives back the former."""
        former, self.classifier = self.classifier, classifier
        classifier.measures.serves(classifier.predictor.bundle, classifier.drift)
        return former
