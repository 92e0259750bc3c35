"""Which values of a config a training looked at.

A searched value that nothing reads makes every trial the same in it: the search would explore, and
its report would explain, a number that does nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from fer_ray.config.schema import Config
from fer_ray.config.sections.base import Section
from fer_ray.errors import UserError


class Reads:
    """Notes each value that is read off a config, until it is closed.

    Args:
        config: stays as it is; its sections may be defaults that all configs share.

    Attributes:
        config: an equal one, watched. Operations on the whole tree, such as to dump it, are not
            noted.
    """

    def __init__(self, config: Config) -> None:
        self.config = config.model_copy(deep=True)
        self._sections = dict(_sections(self.config, ""))
        self._seen: set[str] = set()
        for address, section in self._sections.items():
            watched = _watched(type(section))
            section.__dict__[_NOTE] = functools.partial(self._note, address)
            object.__setattr__(section, "__class__", watched)

    def _note(self, address: str, name: str) -> None:
        self._seen.add(f"{address}.{name}" if address else name)

    def require(self, params: Mapping[str, Any]) -> None:
        """Refuse a searched value that nothing has read.

        A value may lie idle where another searched value of its section switches it off: with
        `erase_p` at 0 nobody asks how much to erase.

        Args:
            params: address -> value of the trial's holes.

        Raises:
            UserError: naming each such value.
        """
        off = {_section_of(address) for address, value in params.items() if value in _OFF}
        idle = [a for a in params if a not in self._seen and _section_of(a) not in off]
        if idle:
            raise UserError(
                f"{', '.join(idle)}: searched, but nothing in this training read it",
                "Leave it out of the search, or change the fixed value that switches it off.",
            )

    def close(self) -> None:
        """Watch no longer."""
        for section in self._sections.values():
            if _NOTE in section.__dict__:
                object.__setattr__(section, "__class__", type(section).__mro__[1])
                del section.__dict__[_NOTE]


_NOTE = " note"
"""No attribute can have this name."""
_OFF = (0, None, "none")  # false is 0


def _section_of(address: str) -> str:
    return address.rpartition(".")[0]


def _sections(section: Section, address: str) -> Iterator[tuple[str, Section]]:
    yield address, section
    for name, value in section.__dict__.items():
        if isinstance(value, Section):
            yield from _sections(value, f"{address}.{name}" if address else name)


@functools.cache
def _watched(kind: type[Section]) -> type[Section]:
    """A subclass that says what is read off it."""
    fields = frozenset(kind.model_fields)

    def read(self: Any, name: str) -> Any:
        if name in fields:
            object.__getattribute__(self, "__dict__")[_NOTE](name)
        return object.__getattribute__(self, name)

    return type(f"Watched{kind.__name__}", (kind,), {"__getattribute__": read})
