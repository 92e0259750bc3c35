"""Every error fer-ray raises on purpose.

    FerRayError                    exit 1   something failed
    +-- UserError                  exit 2   the input is wrong: value, rule, remedy
    |   +-- ConfigError                     one or many problems in a YAML file
    |   +-- DataError                       images, archives, prepared data sets
    |   |   +-- DecodeError                 one image cannot be decoded
    |   +-- BundleError                     a bundle is damaged, hostile or unknown
    |   +-- OutputExistsError               never overwrite, never mix
    +-- NothingSucceededError      exit 3   it ran, and nothing came of it
    +-- UnfinishedError            exit 4   work is left undone; says what is left
        +-- InterruptedRunError    exit 130 likewise, by Ctrl-C

All carry their arguments in `args`, so that they survive pickling between Ray processes.
"""

from __future__ import annotations

from dataclasses import dataclass


class FerRayError(Exception):
    """Base of the tree.

    Args:
        message: the value and the rule it breaks.
        remedy: what to do about it, one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def remedy(self) -> str | None:
        return self.args[1] if len(self.args) > 1 else None

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  {self.remedy}"


class UserError(FerRayError):
    """The user's input is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One fault in a YAML file (or a `-s` override), with its place.

    Attributes:
        place: file name, or the override as typed.
        line: 1-based, 0 when there is no line.
        column: 1-based, 0 when there is no column.
        message: the value, the rule and the remedy.
        source_line: the text of that line, for the caret.
    """

    place: str
    line: int
    column: int
    message: str
    source_line: str = ""

    def __str__(self) -> str:
        where = f"{self.place}:{self.line}:{self.column}" if self.line else self.place
        text = f"{where}: {self.message}"
        if self.source_line.strip():
            text += f"\n    {self.source_line.rstrip()}\n    {' ' * (self.column - 1)}^"
        return text


class ConfigError(UserError):
    """Problems in a config, all of them at once.

    Args:
        problems: at least one.
    """

    def __init__(self, problems: tuple[Problem, ...] | list[Problem]) -> None:
        Exception.__init__(self, tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self.args[0])

    @property
    def message(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    @property
    def remedy(self) -> str | None:
        return None


class DataError(UserError):
    """An image source or a prepared data set is wrong."""


class DecodeError(DataError):
    """One image cannot be decoded.

    Args:
        message: short, without the image's path.
        error_type: a stable word for the `error_type` column (docs: scoring).
    """

    def __init__(self, message: str, error_type: str) -> None:
        Exception.__init__(self, message, error_type)

    @property
    def error_type(self) -> str:
        return str(self.args[1])

    @property
    def remedy(self) -> str | None:
        return None


class BundleError(UserError):
    """A bundle is damaged, hostile or of an unknown version."""


class OutputExistsError(UserError):
    """The output is already there."""


class NothingSucceededError(FerRayError):
    """It ran, but nothing succeeded."""

    exit_code = 3


class UnfinishedError(FerRayError):
    """Stopped or finished with work undone; the message says what is left."""

    exit_code = 4


class InterruptedRunError(UnfinishedError):
    """Ended by Ctrl-C with work undone."""

    exit_code = 130
