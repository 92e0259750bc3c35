"""A run's directory: what stands where, and how `best` is swapped."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fer_ray import __version__
from fer_ray.config.schema import Config
from fer_ray.errors import UserError
from fer_ray.store import (
    new_directory,
    read_json,
    require_absent,
    shown,
    swap_symlink,
    write_atomic,
    write_json,
)

FORMAT = 1


class RunDirectory:
    """Paths of a run, and the writing of its documents.

    Args:
        path: its directory.
        address: how it is called, where its home is not this directory but object storage.
    """

    def __init__(self, path: Path, address: str | None = None) -> None:
        self.path = path
        self.address = address

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run."""
        return self.path / ".lock"

    @property
    def study_db(self) -> Path:
        return self.path / "study.db"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def status_json(self) -> Path:
        return self.path / "status.json"

    @property
    def stop_file(self) -> Path:
        """There while the run is asked to end in order."""
        return self.path / "stop.json"

    @property
    def confirm(self) -> Path:
        """Trainings of the best on fresh seeds."""
        return self.path / "confirm"

    @property
    def tensorboard(self) -> Path:
        """Event files, a folder a trial, where they were asked for."""
        return self.path / "tensorboard"

    @property
    def ray(self) -> Path:
        return self.path / "ray"

    def trial(self, number: int) -> Path:
        return self.path / "trials" / str(number)

    def checkpoint(self, number: int) -> Path:
        return self.trial(number) / "checkpoint.safetensors"

    def bundle(self, number: int) -> Path:
        return self.path / "bundles" / str(number)

    def keep_evaluation(self, name: str, document: Any) -> Path:
        """Write `evaluations/<name>-<time>.json`; an earlier one stays.

        Args:
            name: split and bundle, for instance.
            document: plain data.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        stamp = now.split("+")[0].replace(":", "").replace("-", "")
        path = self.path / "evaluations" / f"{name}-{stamp}Z.json"
        write_json(path, document)
        return path

    def create(
        self,
        verb: str,
        space_text: str,
        data_fingerprint: str,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the directory with `run.json` and `space.yaml`: both or nothing.

        Args:
            verb: `tune` or `train`.
            space_text: the file as given.
            data_fingerprint: of the data set.
            facts: what else `run.json` records.

        Raises:
            OutputExistsError: the directory holds something.
        """
        self.require_absent()
        with new_directory(self.path) as temporary:
            write_json(
                temporary / "run.json",
                {
                    "format": FORMAT,
                    "fer_ray": __version__,
                    "verb": verb,
                    "command": [shown(word) for word in sys.argv],
                    "data_fingerprint": data_fingerprint,
                    **(facts or {}),
                    "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                },
            )
            write_atomic(temporary / "space.yaml", space_text.encode("utf-8"))

    def require_absent(self) -> None:
        """Refuse to overwrite a run.

        Raises:
            OutputExistsError: the directory holds something.
        """
        require_absent(
            self.path,
            "the run",
            f"Choose another --out, or go on with it: fer-ray resume {self.path}. A run is never "
            "overwritten.",
        )

    def document(self) -> dict[str, Any]:
        """`run.json`."""
        document = read_json(self.path / "run.json")
        assert isinstance(document, dict)
        return document

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Work on the run alone: two drivers would write one study.

        The kernel lets the lock go when the process ends, however it ends.

        Raises:
            UserError: another process works on it.
        """
        with self.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process works on {self.path}",
                    f"Watch it with fer-ray status {self.path}, or end it with fer-ray stop "
                    f"{self.path}.",
                ) from None
            except OSError:
                pass  # storage without locks
            yield

    def is_worked_on(self) -> bool | None:
        """Whether a process holds the run's lock, which the kernel drops however it dies.

        None where there is no lock, or the storage knows none. Readers share it, so they do not
        take each other for a driver.
        """
        try:
            with self.lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False

    def write_resolved(self, number: int, config: Config) -> None:
        """`trials/<number>/resolved.yaml`: `fer-ray train` repeats the trial from it."""
        text = yaml_text(config.training_part())
        write_atomic(self.trial(number) / "resolved.yaml", text.encode("utf-8"))

    def point_best(self, number: int | str) -> None:
        """Swap `best` to a trial's bundle, or to another one below `bundles`."""
        swap_symlink(self.best, f"bundles/{number}")


def open_run(path: Path) -> RunDirectory:
    """A run that exists.

    Raises:
        UserError: it is none, or of another format.
    """
    if not (path / "run.json").is_file():
        raise UserError(f"{path} is not a run: it has no run.json")
    document: Any = read_json(path / "run.json")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} is a run of another format; this fer-ray reads {FORMAT}")
    return RunDirectory(path)


def yaml_text(tree: Any) -> str:
    """Plain data as block YAML, floats as every parser reads them."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.representer.add_representer(float, _represent_float)
    buffer = io.StringIO()
    yaml.dump(tree, buffer)
    return buffer.getvalue()


def _represent_float(representer: Any, value: float) -> Any:
    text = repr(value)
    if "e" in text and "." not in text.split("e")[0]:
        text = text.replace("e", ".0e")
    return representer.represent_scalar("tag:yaml.org,2002:float", text)
