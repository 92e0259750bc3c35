"""One way to have Ray: quiet, without usage reports, ended by whoever started it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

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
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    started_here = not ray.is_initialized()
    if started_here:
        # Without an address Ray would join whatever cluster somebody left on this machine.
        ray.init(
            address or os.environ.get("RAY_ADDRESS") or "local",
            include_dashboard=dashboard,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield
    finally:
        if started_here:
            ray.shutdown()
