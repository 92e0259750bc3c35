"""Faces in the photos of requests: found off the event loop, a bounded number of photos at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

from PIL import Image

from fer_ray.errors import DecodeError
from fer_ray.images.detect import (
    MARGIN_FRAC,
    CutFace,
    Face,
    Find,
    build_detector,
    cut_faces,
    kind_of,
)
from fer_ray.serve.bodies import image_bytes
from fer_ray.serve.limits import Limits
from fer_ray.serve.problems import RefusedError, refused_by_decoder


@dataclass(frozen=True)
class Photo:
    """What was found in one photo.

    Attributes:
        faces: from left to right; the largest where there are more than are taken.
        num_found: all of them.
    """

    faces: list[CutFace]
    num_found: int


class FaceFinder:
    """Cuts the faces out of photos, exactly as `fer-ray score --faces` does.

    Args:
        detector: `haar` or `yunet:PATH`.
        size_px: side of a cut face; the bundle's `source_px`.
        num_threads: photos searched at once; each has a detector of its own, for OpenCV's are not
            for several threads.
        limits: of the replica.

    Raises:
        UserError: OpenCV or the detector's file is missing.
    """

    def __init__(self, detector: str, size_px: int, num_threads: int, limits: Limits) -> None:
        self.kind = kind_of(detector)
        self._margin_frac = MARGIN_FRAC[self.kind]
        self._size_px = size_px
        self._limits = limits
        self._num_photos = 0
        self._detectors: SimpleQueue[Find] = SimpleQueue()
        for _ in range(num_threads):
            self._detectors.put(build_detector(detector))
        # Not the decoders' threads: a search takes a hundred times as long as a decoding.
        self._threads = ThreadPoolExecutor(num_threads, "faces")

    @contextmanager
    def admit(self, num_photos: int) -> Iterator[None]:
        """Take photos in, until they are answered; from the event loop only.

        Raises:
            RefusedError: `too-many-images` for one request, or `overloaded`.
        """
        limits = self._limits
        if num_photos > limits.face_photos:
            raise RefusedError(
                "too-many-images",
                f"{num_photos} photos, but faces are sought in at most {limits.face_photos} at "
                "once; send fewer, or images of faces without `faces`",
            )
        if self._num_photos + num_photos > limits.waiting_photos:
            seconds = str(limits.retry_after_s)
            raise RefusedError(
                "overloaded",
                f"faces are being sought in {self._num_photos} photos; try again in {seconds} s",
                {"Retry-After": seconds},
            )
        self._num_photos += num_photos
        try:
            yield
        finally:
            self._num_photos -= num_photos

    async def search(self, image: bytes | str) -> Photo:
        """Find the faces of one photo.

        Args:
            image: a file, or base64 text of one.

        Raises:
            RefusedError: the image or its base64 is wrong.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._search, image)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _search(self, image: bytes | str) -> Photo:
        data = image_bytes(image)
        found: list[Face] = []
        detector = self._detectors.get()

        def largest(photo: Image.Image) -> list[Face]:
            found.extend(detector(photo))
            found.sort(key=lambda face: face.w * face.h, reverse=True)
            return found[: self._limits.faces]

        try:
            cut, _, _ = cut_faces(
                data, largest, self._size_px, self._margin_frac, self._limits.image_pixels
            )
        except DecodeError as error:
            raise refused_by_decoder(error) from error
        finally:
            self._detectors.put(detector)
        return Photo(cut, len(found))
