"""One way to have Ray: quiet, without usage reports, ended by whoever started it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from fer_ray.cluster.join import join
from fer_ray.cluster.nodes import require_same_versions

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}
"""Set before Ray is imported: no usage reports, no output and no snapshots of Ray's own."""


@contextlib.contextmanager
def ray_session(*, dashboard: bool = False, address: str | None = None) -> Iterator[None]:
    """Use the Ray that this process is connected to, or start one and end it afterwards.

    Args:
        dashboard: Ray Train's workers of several ranks leak resources without it.
        address: of a cluster to join; None starts one here, or takes RAY_ADDRESS.

    Raises:
        UserError: the cluster cannot be joined, or a node runs other versions than this process.
    """
    # Without an address Ray would join whatever cluster somebody left on this machine.
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    with joined(place, dashboard=dashboard) as is_new:
        if is_new and place != "local":
            require_same_versions()
        yield


@contextlib.contextmanager
def joined(place: str, *, dashboard: bool = False) -> Iterator[bool]:
    """As `ray_session`, whatever the cluster's nodes run.

    Args:
        place: `local`, `auto` or HOST:PORT.
        dashboard: of a Ray that is started here.

    Yields:
        whether this process was not connected to a Ray before.

    Raises:
        UserError: the cluster cannot be joined.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    is_new = not ray.is_initialized()
    if is_new:
        join(place, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield is_new
    finally:
        if is_new:
            ray.shutdown()
