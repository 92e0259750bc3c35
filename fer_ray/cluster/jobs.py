"""A command handed to a cluster through its dashboard: a Ray job on the head, which outlives us.

The command runs there as it would here, without --address: what it reads and writes are paths that
the head sees. One file of this machine travels along, the space or config itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_ray.errors import FerRayError, UnfinishedError, UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MOST_UPLOAD_BYTES = 10_000_000
"""Of the file that travels along: it is YAML."""
_NOT_FOUND = 127  # of the shell
_WAIT_S = 0.5


@dataclass(frozen=True)
class Command:
    """A command line to be run on the head.

    Attributes:
        words: behind `fer-ray`, without --address and --detach.
        upload: a file of this machine that is one of the words; None where there is none.
        places: (how the user calls it, path): what must mean the same on the head.
    """

    words: tuple[str, ...]
    upload: Path | None = None
    places: tuple[tuple[str, str], ...] = ()


def is_dashboard(address: str | None) -> bool:
    """Whether an address is a dashboard's, which runs jobs."""
    return address is not None and address.startswith(("http://", "https://"))


def check_command(command: Command) -> None:
    """Refuse what would mean something else on the head.

    Raises:
        UserError: a relative path, or a file that does not travel.
    """
    for name, place in command.places:
        if place != "sample" and "://" not in place and not Path(place).is_absolute():
            raise UserError(
                f"{name} {place} is relative to this machine's directory, but the command runs on "
                "the cluster's head",
                "Give the whole path as the nodes see it, such as /shared/...",
            )
    if command.upload is not None and command.upload.stat().st_size > MOST_UPLOAD_BYTES:
        raise UserError(f"{command.upload} has more than {MOST_UPLOAD_BYTES:,} bytes: no YAML file")


def submit(url: str, command: Command) -> str:
    """Start the job.

    Args:
        url: the dashboard's.
        command: checked with `check_command`.

    Returns:
        the job's id.

    Raises:
        UserError: nobody answers there, or does not let us in.
        FerRayError: the cluster does not take the job.
    """
    client = _client(url)
    words = list(command.words)
    with tempfile.TemporaryDirectory(prefix="fer-ray-job-") as folder:
        runtime_env: dict[str, Any] = {}
        if command.upload is not None:
            shutil.copy(command.upload, Path(folder) / command.upload.name)
            words = [
                command.upload.name if Path(word) == command.upload else word for word in words
            ]
            runtime_env["working_dir"] = folder
        try:
            return str(
                client.submit_job(
                    entrypoint=shlex.join(["fer-ray", *words]),
                    submission_id=f"fer-ray-{words[0]}-{secrets.token_hex(4)}",
                    runtime_env=runtime_env,
                )
            )
        except (RuntimeError, ConnectionError) as error:
            raise FerRayError(f"the cluster at {url} does not take the job: {error}") from error


def follow(url: str, job: str, write: Callable[[str], None]) -> int:
    """Pass on what the job says until it ends.

    Args:
        url: the dashboard's.
        job: its id.
        write: told pieces of its output, line ends included.

    Returns:
        the command's exit code.

    Raises:
        FerRayError: the job did not start, or the cluster has no fer-ray.
        UnfinishedError: it was ended from outside.
    """
    client = _client(url)
    asyncio.run(_tail(client, job, write))
    info = client.get_job_info(job)
    status = str(info.status.value)
    code = info.driver_exit_code
    if status == "STOPPED":
        raise UnfinishedError(
            f"job {job} was stopped", "The run, if one had begun, can be resumed."
        )
    if status == "FAILED" and code == _NOT_FOUND:
        raise FerRayError(
            f"the head of the cluster at {url} has no fer-ray on its PATH",
            "Use the image of cluster/Dockerfile, or start Ray there with fer-ray's bin on PATH.",
        )
    if status == "FAILED" and code is None:
        raise FerRayError(f"job {job} did not run: {info.message}")
    return code or 0


async def _tail(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> None:
    """Its output as it comes; the end of the stream is the end of the job."""
    told = 0
    async for text in client.tail_job_logs(job):
        told += len(text)
        write(text)
    while not client.get_job_status(job).is_terminal():
        await asyncio.sleep(_WAIT_S)
    write(client.get_job_logs(job)[told:])  # what came between the last look and the end


def _client(url: str) -> JobSubmissionClient:
    # Ray prefers RAY_ADDRESS to what it is told, and this variable to both.
    os.environ["RAY_API_SERVER_ADDRESS"] = url
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(url)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        text = str(error)
        if isinstance(error, ray.exceptions.AuthenticationError) or "401" in text:
            raise UserError(
                f"the dashboard at {url} does not let this process in",
                "Set RAY_AUTH_MODE=token and put the cluster's token into ~/.ray/auth_token.",
            ) from error
        raise UserError(
            f"no dashboard of Ray answers at {url}",
            "Forward it first: ray dashboard CLUSTER.yaml, or kubectl port-forward "
            "service/CLUSTER-head-svc 8265.",
        ) from error


def words_to_hand_over(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line without what says where it runs."""
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--address":
            next(rest, None)
        elif word != "--detach" and not word.startswith("--address="):
            kept.append(word)
    return tuple(kept)
