"""One Predictor behind an event loop: decoding in a pool, inference in batches."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DecodeError
from fer_ray.images.decode import Decoded
from fer_ray.serve.batcher import Batcher
from fer_ray.serve.bodies import image_bytes
from fer_ray.serve.problems import RefusedError, refused_by_decoder


class Classifier:
    """Classifies images of requests.

    Args:
        predictor: checked by its golden answers when it was made.
        num_threads: decoding, and of torch.
    """

    def __init__(self, predictor: Predictor, num_threads: int) -> None:
        self.predictor = predictor
        self._decoders = ThreadPoolExecutor(num_threads, "decode")
        self._batcher = Batcher(predictor, num_threads)

    async def classify(self, image: bytes | str, top_k: int | None) -> dict[str, Any]:
        """One image to `predictions` and `uncertain`.

        Args:
            image: a file, or base64 text of one.
            top_k: None is all classes.

        Raises:
            RefusedError: the image or its base64 is wrong.
        """
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._decoders, self._decode, image)
        answer = await self._batcher.submit(decoded.pixels)
        return {
            "predictions": answer.predictions.ranked(answer.row, top_k),
            "uncertain": bool(answer.predictions.scores[answer.row] < answer.predictions.threshold),
        }

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

    def close(self) -> None:
        """Let go of the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    def _decode(self, image: bytes | str) -> Decoded:
        try:
            return self.predictor.decode(image_bytes(image))
        except DecodeError as error:
            raise refused_by_decoder(error) from error


@dataclass
class Slot:
    """What is served just now; None until a model is loaded and its golden check passed."""

    classifier: Classifier | None = None
