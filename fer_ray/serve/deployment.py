"""The one deployment: a replica that is FastAPI ingress and model at once, one hop from the socket.

Runs inside Ray's workers; `fer_ray.serve.start` starts it.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from fastapi import FastAPI
from ray import serve

from fer_ray.bundle.load import load_bundle
from fer_ray.bundle.predictor import Predictor
from fer_ray.serve.app import build_app
from fer_ray.serve.classifier import Classifier, Slot
from fer_ray.serve.endpoint import ReplicaOptions
from fer_ray.serve.limits import Limits

MAX_ONGOING_REQUESTS = 4 * Limits().requests
"""Serve's own bound of a replica: never reached, for ours answers 503 first."""

NAME = "fer-ray"


class Replica:
    """Loads and checks the bundle, then serves; Serve opens the socket after that."""

    def __init__(self, options: ReplicaOptions) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if options.shares_port:
            share_port()
        predictor = Predictor(
            load_bundle(options.bundle),
            options.precision,
            runtime=options.runtime,
            num_threads=options.num_threads,
        )
        self._slot = Slot(Classifier(predictor, options.num_threads))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self._slot)


def application(options: ReplicaOptions, num_replicas: int, num_gpus: float) -> serve.Application:
    """Bind the deployment."""
    deployment = serve.deployment(
        name=NAME,
        num_replicas=num_replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 1, "num_gpus": num_gpus},
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=3.0,
        health_check_period_s=2,  # a replica that died is noticed by it
        max_constructor_retry_count=1,
    )(serve.ingress()(Replica))
    bound: serve.Application = deployment.bind(options)
    return bound


def share_port() -> None:
    """Let Serve's direct ingress bind its port while old connections linger on it.

    Ray 2.60 binds it without SO_REUSEADDR: after a restart on the same port that fails for the
    minute in which the kernel keeps closed connections, and Serve then blocks the port for good.
    """
    from ray.serve._private import http_util, replica

    start = http_util.start_asgi_http_server

    @functools.wraps(start)
    async def start_sharing(*args: Any, **kwargs: Any) -> Any:
        return await start(*args, **{**kwargs, "enable_so_reuseport": True})

    vars(replica)["start_asgi_http_server"] = start_sharing
