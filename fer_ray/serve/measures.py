"""What the endpoint counts, for Prometheus: its own names, not Ray's.

Each replica counts for itself. `snapshot` is its state as plain data, and `exposition` writes the
snapshots of all replicas as one page, each with its own `replica` label: sum over it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fer_ray.bundle.load import Bundle

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

WINDOW = 1000
"""Answers over which drift is looked at."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_FACES = (0, 1, 2, 4, 8, 16, 32)
_STAGES = ("receive", "decode", "detect", "classify")

Snapshot = list[dict[str, Any]]
"""One replica's families: name, documentation, type and samples, ready for JSON."""


class Measures:
    """The counters of one replica."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        registry = self._registry
        self.requests = Counter(
            "fer_ray_requests",
            "Requests by route and outcome (ok, or the name of the problem).",
            ("route", "outcome"),
            registry=registry,
        )
        self.seconds = Histogram(
            "fer_ray_request_seconds",
            "From the request's head to the end of its answer.",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.stages = Histogram(
            "fer_ray_stage_seconds",
            "Of a request's time: receive (its body), decode, detect (find the faces), classify "
            "(queue and network).",
            ("stage",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.batch = Histogram(
            "fer_ray_batch_images", "Images a forward pass.", registry=registry, buckets=_IMAGES
        )
        self.faces = Histogram(
            "fer_ray_faces", "Faces found in a photo.", registry=registry, buckets=_FACES
        )
        self.predictions = Counter(
            "fer_ray_predictions", "Images by answer.", ("label",), registry=registry
        )
        self.uncertain = Counter(
            "fer_ray_uncertain", "Images whose answer was uncertain.", registry=registry
        )
        self.drift = Gauge(
            "fer_ray_drift_psi",
            f"Population stability index of the last {WINDOW} answers against validation; "
            "0.1 is a small change, 0.25 a large one. Absent below 100 answers.",
            registry=None,
        )
        self.in_work = Gauge("fer_ray_requests_in_work", "Taken in just now.", registry=registry)
        self.updates = Counter(
            "fer_ray_bundle_updates", "By outcome: ok or failed.", ("outcome",), registry=registry
        )
        self.bundle = Gauge(
            "fer_ray_bundle_info", "The bundle being served.", ("name", "id"), registry=registry
        )
        self._stage = {name: self.stages.labels(name) for name in _STAGES}
        self._drift = Drift((), None)

    def stage(self, name: str, seconds: float) -> None:
        """Count one stage of one request or image."""
        self._stage[name].observe(seconds)

    def serves(self, bundle: Bundle, drift: Drift) -> None:
        """Another bundle is served from now on."""
        self.bundle.clear()
        self.bundle.labels(bundle.contents.name, bundle.id).set(1)
        self._drift = drift

    def answered(self, label: str, *, uncertain: bool) -> None:
        """Count one image's answer."""
        self.predictions.labels(label).inc()
        if uncertain:
            self.uncertain.inc()

    def snapshot(self) -> Snapshot:
        """All counters as they are now."""
        families = list(self._registry.collect())
        psi = self._drift.psi()
        if psi is not None:
            self.drift.set(psi)
            families.extend(self.drift.collect())
        return [
            {
                "name": family.name,
                "documentation": family.documentation,
                "type": family.type,
                "samples": [
                    (sample.name, sample.labels, sample.value)
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ],
            }
            for family in families
        ]


class Drift:
    """How far the last answers lie from those on validation, by class.

    Args:
        class_names: in order.
        expected: share of each class among the answers on validation, or None where unknown.
    """

    def __init__(
        self, class_names: Sequence[str], expected: npt.NDArray[np.float64] | None
    ) -> None:
        self._counts = np.zeros(len(class_names), np.int64)
        self._expected = expected
        self._window: deque[int] = deque()

    def add(self, label_index: int) -> None:
        self._window.append(label_index)
        self._counts[label_index] += 1
        if len(self._window) > WINDOW:
            self._counts[self._window.popleft()] -= 1

    def psi(self) -> float | None:
        """Population stability index; None below 100 answers or without figures to compare with."""
        if self._expected is None or len(self._window) < 100:
            return None
        # Half an answer more a class: an empty one would make the logarithm infinite.
        found = (self._counts + 0.5) / (self._counts.sum() + 0.5 * len(self._counts))
        return float(((found - self._expected) * np.log(found / self._expected)).sum())


def validation_shares(bundle: Bundle) -> npt.NDArray[np.float64] | None:
    """Share of each class among the answers on validation, float64 [C]; None where unknown."""
    confusion = bundle.contents.metrics.get("validation", {}).get("confusion")
    num_classes = len(bundle.contents.class_names)
    try:
        answers = np.asarray(confusion, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if answers.shape != (num_classes, num_classes) or not answers.sum() > 0:
        return None
    smoothed = answers.sum(axis=0) + 0.5
    return np.asarray(smoothed / smoothed.sum(), dtype=np.float64)


def exposition(replicas: Iterable[tuple[str, Snapshot]]) -> str:
    """One Prometheus page of all replicas.

    Args:
        replicas: name and snapshot of each.
    """
    families: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for replica, snapshot in replicas:
        for family in snapshot:
            _, lines = families.setdefault(family["name"], (family, []))
            for name, labels, value in family["samples"]:
                pairs = {**labels, "replica": replica}
                text = ",".join(f'{key}="{_escaped(pairs[key])}"' for key in sorted(pairs))
                lines.append(f"{name}{{{text}}} {_number(value)}")
    page = []
    for name, (family, lines) in sorted(families.items()):
        # The old text format names a counter with its suffix.
        shown = f"{name}_total" if family["type"] == "counter" else name
        page += [f"# HELP {shown} {family['documentation']}", f"# TYPE {shown} {family['type']}"]
        page += lines
    return "\n".join(page) + "\n"


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
