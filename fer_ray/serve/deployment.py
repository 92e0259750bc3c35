"""The one deployment: a replica that is FastAPI ingress and model at once, one hop from the socket.

Runs inside Ray's workers. `fer_ray.serve.start` starts it; `fer_ray.serve.deployment:build` is the
import path for `serve deploy` and KubeRay, with `Settings` as `args` and the bundle in
`user_config`, so that a changed bundle is a change of configuration and no restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve

from fer_ray import __version__
from fer_ray.bundle.load import find_bundle, load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.errors import FerRayError
from fer_ray.serve.access_log import AccessLog
from fer_ray.serve.app import Surroundings, build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.detection import FaceFinder
from fer_ray.serve.keys import KeyBook
from fer_ray.serve.limits import Limits
from fer_ray.serve.measures import Measures, Snapshot
from fer_ray.serve.overload import overloaded
from fer_ray.serve.ray_sockets import listen_at
from fer_ray.serve.settings import Settings

MAX_ONGOING_REQUESTS = 4 * Limits().requests
"""Serve's own bound of a replica: never reached, for ours answers 503 first."""

NAME = "fer-ray"
BUNDLE = "bundle"
"""Key of `user_config`: a bundle's or run's directory, or null for the shipped model."""

METRICS_TIMEOUT_S = 5.0

log = logging.getLogger("ray.serve.fer_ray")


class Replica:
    """Loads and checks the bundle, then serves; Serve opens the socket after that."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._settings = settings
        self._measures = Measures()
        self._slot = Slot()
        self._fault = ""
        self._name = serve.get_replica_context().replica_tag
        self._access_log = AccessLog(settings.access_log) if settings.access_log else None
        self._tasks: set[asyncio.Task[None]] = set()
        if settings.socket is not None:
            refuse = overloaded(settings.limits, self._measures, self._access_log)
            listen_at(settings.socket, settings.limits, refuse)

    def __del__(self) -> None:
        """Serve's call after the last answer, before it ends the process: lose no line."""
        access_log = getattr(self, "_access_log", None)  # it may have failed before
        if access_log is not None:
            access_log.close()

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        around = Surroundings(
            limits=settings.limits,
            keys=KeyBook(settings.api_keys) if settings.api_keys else None,
            guards_operations=settings.guards_operations,
            has_page=settings.has_page,
            notice=settings.notice,
            finds_faces=settings.faces != "none",
            access_log=self._access_log,
            measures=self._measures,
            replicas=self._snapshots_of_all,
        )
        return build_app(self._slot, around)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve's call before the first request, and whenever the bundle changes.

        The new bundle is loaded and checked beside the old one and swapped in between two requests.
        One that is refused leaves the old one serving; `loaded` tells.

        Raises:
            BundleError: refused, and there is no old one.
        """
        try:
            classifier = await asyncio.to_thread(self._load, user_config.get(BUNDLE))
        except FerRayError as error:
            if self._slot.classifier is None:
                raise
            self._fault = error.message
            self._measures.updates.labels("failed").inc()
            log.error("the new bundle is refused, the former one serves on: %s", error.message)
            return
        self._fault = ""
        former = self._slot.put(classifier)
        if former is not None:
            self._measures.updates.labels("ok").inc()
            closing = asyncio.ensure_future(former.close_when_idle())
            self._tasks.add(closing)
            closing.add_done_callback(self._tasks.discard)

    async def loaded(self) -> tuple[str, str]:
        """Id of the bundle being served, and why the last update was refused (empty if not)."""
        assert self._slot.classifier is not None
        return self._slot.classifier.predictor.bundle.id, self._fault

    async def snapshot(self) -> tuple[str, Snapshot]:
        """This replica's name and counters."""
        return self._name, self._measures.snapshot()

    def _load(self, place: str | None) -> Classifier:
        settings = self._settings
        predictor = Predictor(
            load_bundle(find_bundle(place)),
            settings.precision,
            runtime=settings.runtime,
            num_threads=settings.num_threads,
        )
        limits = settings.limits
        finder = None
        if settings.faces != "none":
            # Half of the threads: who sends single faces shall not wait for searches.
            searches = max(1, settings.num_threads // 2)
            finder = FaceFinder(settings.faces, predictor.source_px, searches, limits)
        return Classifier(
            predictor, settings.num_threads, limits.image_pixels, self._measures, finder
        )

    async def _snapshots_of_all(self) -> Sequence[tuple[str, Snapshot]]:
        """Every replica's counters; of this one alone while the others cannot be asked."""
        own = await self.snapshot()
        others: list[tuple[str, Snapshot]] = []
        try:
            handle = serve.get_deployment_handle(NAME, NAME)
            async with asyncio.timeout(METRICS_TIMEOUT_S):
                others = list(await handle.broadcast("snapshot").results_async())
        except Exception as error:  # a replica that goes must not hide the others' counters
            log.warning("not every replica told its counters: %s", error, exc_info=True)
        return [own, *(other for other in others if other[0] != own[0])]


def application(
    settings: Settings,
    bundle: str | None,
    *,
    num_replicas: int,
    max_replicas: int,
    num_gpus: float,
) -> serve.Application:
    """Bind the deployment.

    Args:
        settings: of each replica.
        bundle: a bundle's or run's directory; None is the shipped model.
        num_replicas: at least.
        max_replicas: at most; above `num_replicas` their number follows the load.
        num_gpus: of each replica.
    """
    options: dict[str, Any] = {
        "user_config": {BUNDLE: bundle},
        "ray_actor_options": {"num_cpus": 1, "num_gpus": num_gpus},
        **replica_numbers(num_replicas, max_replicas),
    }
    # The same version while only `user_config` changes: replicas are told, not replaced.
    version = hashlib.sha256(f"{__version__} {settings.model_dump_json()} {num_gpus}".encode())
    deployment = _deployment(settings).options(
        **options, version=version.hexdigest()[:16], _internal=True
    )
    bound: serve.Application = deployment.bind(settings)
    return bound


def replica_numbers(num_replicas: int, max_replicas: int) -> dict[str, Any]:
    """Serve's options for a fixed or a moving number of replicas."""
    if max_replicas <= num_replicas:
        return {"num_replicas": num_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": num_replicas,
            "max_replicas": max_replicas,
            # A replica keeps its cores busy with about as many as go into one batch.
            "target_ongoing_requests": 32,
            "upscale_delay_s": 5.0,
            "downscale_delay_s": 60.0,
        }
    }


def build(args: dict[str, Any]) -> serve.Application:
    """Application builder for Serve's YAML (`import_path: fer_ray.serve.deployment:build`).

    Args:
        args: `Settings` as plain data. Serve would validate them by the annotation, but reads it
            unresolved: under `from __future__ import annotations` it is a mere string.

    Raises:
        pydantic.ValidationError: an unknown or wrong setting.
    """
    settings = Settings.model_validate(args)
    bound: serve.Application = _deployment(settings).bind(settings)
    return bound


def _deployment(settings: Settings) -> serve.Deployment:
    made: serve.Deployment = serve.deployment(
        name=NAME,
        user_config={BUNDLE: None},
        max_ongoing_requests=max(MAX_ONGOING_REQUESTS, 4 * settings.limits.requests),
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=3.0,
        health_check_period_s=2,  # a replica that died is noticed by it
        max_constructor_retry_count=1,
    )(serve.ingress()(Replica))
    return made
