"""`--plan`: what a job will take, measured on a sample before anything is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import UnfinishedError, UserError
from fer_ray.score.classify import Classifier
from fer_ray.score.fetch import Fault, Fetcher
from fer_ray.score.items import Item
from fer_ray.score.listing import Listing, no_image, open_sources
from fer_ray.score.options import Effort, RowOptions, SourceOptions
from fer_ray.score.prepare import Prepared, Preparer, Recipe
from fer_ray.score.transient import Patience

SAMPLE_ITEMS = 512
LISTING_S = 10.0
"""So long the sources are counted; beyond it the number is a lower bound."""


@dataclass(frozen=True)
class Estimate:
    """What a job will take on this machine.

    Attributes:
        num_items: counted; a lower bound where `counted_all` is false.
        sample: items measured; `faults` of them were permanent faults.
        fetch_s, decode_s, inference_s: of one item, by one reader, one core, one network.
        bottleneck: `fetch`, `decode` or `inference`.
        rate: items a second with this machine's threads and reads in flight.
        seconds: for all items at that rate.
        workers: machines like this one that finish within an hour.
        requests: GETs and listings, at least; 0 for local files.
        bytes_read: estimated from the sample.
    """

    num_items: int
    counted_all: bool
    sample: int
    faults: int
    fetch_s: float
    decode_s: float
    inference_s: float
    bottleneck: str
    rate: float
    seconds: float
    workers: int
    requests: int
    bytes_read: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        more = "" if self.counted_all else f" or more (counted for {LISTING_S:.0f} s)"
        minutes = self.seconds / 60
        lasts = f"{self.seconds:.0f} s" if minutes < 2 else f"{minutes:,.0f} minutes"
        costs = [
            f"{name} {1e3 * seconds:.2f} ms"
            for name, seconds in (
                ("fetch", self.fetch_s),
                ("decode", self.decode_s),
                ("inference", self.inference_s),
            )
        ]
        lines = [
            f"images: {self.num_items:,}{more}, about {self.bytes_read / 1e6:,.0f} MB",
            f"sample: {self.sample:,} images, {self.faults:,} of them faulty",
            f"one image: {', '.join(costs)}",
            f"bottleneck: {self.bottleneck}; {self.rate:,.0f} images/s here, {lasts} in all",
            f"within an hour: {self.workers:,} machine(s) like this one",
        ]
        if self.requests:
            lines.append(f"requests: about {self.requests:,}")
        return lines


def plan_job(
    sources: Sequence[str],
    predictor: Predictor,
    rows: RowOptions,
    tables: SourceOptions,
    effort: Effort,
) -> Estimate:
    """Count for some seconds, then fetch, decode and classify a sample.

    Raises:
        UserError: no image, or a source that cannot be read (standard input included).
        UnfinishedError: the storage does not answer.
    """
    if "-" in sources:
        raise UserError("--plan reads its sources twice, standard input only once", "Use a file.")
    patience = Patience(effort.give_up_after_s)
    listing = open_sources(sources, tables, patience, None)
    sample, count, counted_all = _count(listing)
    if not sample:
        raise no_image(sources, listing.skipped)
    is_remote = any(not item.path.startswith("/") for item in sample)
    recipe = Recipe(
        predictor.source_px,
        tuple(predictor.class_names),
        rows,
        listing.storages,
        effort.give_up_after_s,
        1,
        effort.reads_in_flight,
    )
    fetcher = Fetcher(listing.storages, patience)
    fetch_s, sizes = _fetch(fetcher, sample[:: max(1, len(sample) // 64)])
    prepared, prepare_s = _prepare(Preparer(recipe), sample, listing)
    classifier = Classifier(predictor, rows, listing.kept)
    classifier.classify(prepared)  # the first pass is slower
    started = time.perf_counter()
    classifier.classify(prepared)
    inference_s = (time.perf_counter() - started) / max(1, len(sample))
    in_flight = effort.reads_in_flight if is_remote else effort.threads
    decode_s = max(prepare_s - fetch_s / (effort.reads_in_flight if is_remote else 1), 1e-6)
    shares = {
        "fetch": fetch_s / in_flight,
        "decode": decode_s / effort.threads,
        "inference": inference_s,
    }
    bottleneck = max(shares, key=lambda name: shares[name])
    # Decoding and inference share the cores of a machine without a GPU.
    on_cpu = str(getattr(predictor, "device", "cpu")) == "cpu"
    busy = shares["decode"] + shares["inference"] if on_cpu else shares[bottleneck]
    rate = 1 / max(busy, shares["fetch"], 1e-9)
    seconds = count / rate
    return Estimate(
        count,
        counted_all,
        len(sample),
        sum(status == "error" for status in prepared.rows.column("status").to_pylist()),
        fetch_s,
        decode_s,
        inference_s,
        bottleneck,
        rate,
        seconds,
        max(1, math.ceil(seconds / 3600)),
        2 * count if is_remote else 0,
        int(count * sum(sizes) / max(1, len(sizes))),
    )


def _count(listing: Listing) -> tuple[list[Item], int, bool]:
    """The first items, how many there are, and whether all were counted."""
    sample: list[Item] = []
    count = 0
    until = time.monotonic() + LISTING_S
    for item in listing.items(b""):
        if len(sample) < SAMPLE_ITEMS:
            sample.append(item)
        count += 1
        if count % 1000 == 0 and time.monotonic() > until:
            return sample, count, False
    return sample, count, True


def _fetch(fetcher: Fetcher, items: Sequence[Item]) -> tuple[float, list[int]]:
    """Seconds an item, one after another, and their sizes in bytes."""
    started = time.perf_counter()
    found = [fetcher.fetch(item) for item in items]
    seconds = (time.perf_counter() - started) / len(items)
    return seconds, [0 if isinstance(data, Fault) else len(data) for data in found]


def _prepare(preparer: Preparer, items: Sequence[Item], listing: Listing) -> tuple[Prepared, float]:
    started = time.perf_counter()
    (prepared,) = preparer.stream(iter([items]), listing.kept)
    if isinstance(prepared, UnfinishedError):
        raise prepared
    return prepared, (time.perf_counter() - started) / len(items)
