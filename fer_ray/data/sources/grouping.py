"""`--group-by`: what must stay in one split, from a column or from the file name."""

from __future__ import annotations

import re

from fer_ray.errors import DataError, UserError


class Grouping:
    """One `--group-by`.

    Args:
        text: name of a column (CSV, Parquet), or a regular expression with one group that is
            searched in the image's path inside the source.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._pattern: re.Pattern[str] | None = None

    def column(self, columns: list[str]) -> int | None:
        """Index of the column of that name; blanks around and case do not count."""
        wanted = self.text.strip().lower()
        plain = [column.strip().lower() for column in columns]
        return plain.index(wanted) if wanted in plain else None

    def require_pattern(self, place: str, columns: list[str] | None = None) -> None:
        """Take the text for a regular expression.

        Raises:
            UserError: it is none, or has not exactly one group.
        """
        have = f"; {place} has the columns {', '.join(columns)}" if columns is not None else ""
        try:
            self._pattern = re.compile(self.text)
        except re.error as error:
            raise UserError(f"--group-by {self.text!r} is no pattern: {error}{have}") from error
        if self._pattern.groups != 1:
            raise UserError(
                f"--group-by {self.text!r} has {self._pattern.groups} groups, but needs one{have}",
                r"Give a column, or a pattern of the file name such as '(person\d+)_'.",
            )

    def of_name(self, name: str) -> str:
        """Group of an image by its path.

        Raises:
            DataError: the pattern does not fit.
        """
        assert self._pattern is not None, "require_pattern comes first"
        found = self._pattern.search(name)
        if found is None or not found.group(1):
            raise DataError(f"--group-by {self.text!r} finds no group in {name!r}")
        return found.group(1)
