"""One Predictor behind an event loop: decoding in a pool, inference in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import DecodeError
from fer_ray.images.decode import Decoded
from fer_ray.serve.batcher import Answer, Batcher
from fer_ray.serve.bodies import image_bytes
from fer_ray.serve.detection import FaceFinder
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
        finder: of faces in photos; None offers no detection.
    """

    def __init__(
        self,
        predictor: Predictor,
        num_threads: int,
        max_pixels: int = Limits.image_pixels,
        measures: Measures | None = None,
        finder: FaceFinder | None = None,
    ) -> None:
        self.predictor = predictor
        self._max_pixels = max_pixels
        self._finder = finder
        self.measures = measures or Measures()
        self.drift = Drift(predictor.class_names, validation_shares(predictor.bundle))
        self._decoders = ThreadPoolExecutor(num_threads, "decode")
        self._batcher = Batcher(predictor, num_threads, on_batch=self.measures.batch.observe)
        self._num_threads = num_threads
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
        self.measures.stage("decode", time.perf_counter() - began)
        (answer,) = await self._answer_pixels([decoded.pixels])
        return answer

    async def answer_each(self, images: Sequence[bytes | str]) -> list[Answer | RefusedError]:
        """Classify several images, in order; what is wrong with one hinders no other.

        Each thread decodes its share in one go, and they enter the batches together: a task of the
        event loop an image would cost more than the network.
        """
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        share = -(-len(images) // self._num_threads)
        shares = [images[start : start + share] for start in range(0, len(images), share)]
        parts = await asyncio.gather(
            *(loop.run_in_executor(self._decoders, self._decode_each, part) for part in shares)
        )
        decoded = [one for part in parts for one in part]
        self.measures.stage("decode", time.perf_counter() - began)
        good = [one.pixels for one in decoded if isinstance(one, Decoded)]
        answers = iter(await self._answer_pixels(good))
        return [next(answers) if isinstance(one, Decoded) else one for one in decoded]

    async def _answer_pixels(self, images: list[npt.NDArray[np.uint8]]) -> list[Answer]:
        """Classify what is decoded, uint8 [H, W] at `source_px` each, and count it."""
        began = time.perf_counter()
        answers = await self._batcher.submit_each(images)
        self.measures.stage("classify", time.perf_counter() - began)
        for answer in answers:
            index = answer.label_index
            self.measures.answered(self.predictor.class_names[index], uncertain=answer.uncertain)
            self.drift.add(index)
        return answers

    async def classify(
        self, image: bytes | str, top_k: int | None, *, faces: bool = False
    ) -> dict[str, Any]:
        """One image to `predictions` and `uncertain`.

        Args:
            image: a file, or base64 text of one.
            top_k: None is all classes.
            faces: find the faces of a photo and classify each: adds `faces` and `faces_found`.

        Raises:
            RefusedError: the image or its base64 is wrong; faces are not found here, or no more.
        """
        if not faces:
            return _document(await self.answer(image), top_k)
        with self._finding(1) as finder:
            return await self._find_and_classify(image, top_k, finder)

    async def classify_each(
        self, images: list[bytes | str], top_k: int | None, *, faces: bool = False
    ) -> list[dict[str, Any]]:
        """Several images, in order; a refused one is `{"problem": ...}` and hinders no other.

        Raises:
            RefusedError: faces are not found here, or not in so many.
        """

        if not faces:
            return [
                {"problem": answer.document()}
                if isinstance(answer, RefusedError)
                else _document(answer, top_k)
                for answer in await self.answer_each(images)
            ]

        async def one(image: bytes | str) -> dict[str, Any]:
            try:
                return await self._find_and_classify(image, top_k, finder)
            except RefusedError as refusal:
                return {"problem": refusal.document()}

        with self._finding(len(images)) as finder:
            return await asyncio.gather(*(one(image) for image in images))

    @contextmanager
    def _finding(self, num_photos: int) -> Iterator[FaceFinder]:
        """The finder while it works on so many photos."""
        if self._finder is None:
            raise RefusedError(
                "invalid-parameter", "faces: not offered here; the operator may allow it: --faces"
            )
        with self._finder.admit(num_photos):
            yield self._finder

    async def _find_and_classify(
        self, image: bytes | str, top_k: int | None, finder: FaceFinder
    ) -> dict[str, Any]:
        began = time.perf_counter()
        photo = await finder.search(image)
        self.measures.stage("detect", time.perf_counter() - began)
        self.measures.faces.observe(photo.num_found)
        answers = await self._answer_pixels([cut.pixels for cut in photo.faces])
        faces = [
            {
                "box": {"x": cut.face.x, "y": cut.face.y, "w": cut.face.w, "h": cut.face.h},
                "detector_score": cut.face.score,
                **_document(answer, top_k),
            }
            for cut, answer in zip(photo.faces, answers, strict=True)
        ]
        # For whoever wants one answer: the largest face's. Without a face there is none.
        main = max(faces, key=_area, default={"predictions": [], "uncertain": True})
        return {
            "predictions": main["predictions"],
            "uncertain": main["uncertain"],
            "faces": faces,
            "faces_found": photo.num_found,
        }

    @property
    def detector(self) -> str:
        """`none`, `haar` or `yunet`."""
        return self._finder.kind if self._finder is not None else "none"

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
        if self._finder is not None:
            self._finder.close()

    def _decode_each(self, images: Sequence[bytes | str]) -> list[Decoded | RefusedError]:
        decoded: list[Decoded | RefusedError] = []
        for image in images:
            try:
                decoded.append(self._decode(image))
            except RefusedError as refusal:
                decoded.append(refusal)
        return decoded

    def _decode(self, image: bytes | str) -> Decoded:
        data = image_bytes(image)
        try:
            return self.predictor.decode(data, self._max_pixels)
        except DecodeError as error:
            raise refused_by_decoder(error) from error


def _document(answer: Answer, top_k: int | None) -> dict[str, Any]:
    return {"predictions": answer.ranked(top_k), "uncertain": answer.uncertain}


def _area(face: dict[str, Any]) -> float:
    return float(face["box"]["w"] * face["box"]["h"])


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
