"""Matches names and globs with columns and with slices of them."""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from runner.plan.rows.columns import Column
from runner.plan.rows.slices import slice_names

_LAST = chr(0x10FFFF)


class Named:
    """The names of columns and of their slices, sorted: a glob is only compared with names that begin as it does."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = tuple(columns)
        self._whole = sorted((column.name, place) for place, column in enumerate(self.columns))
        self._slices = sorted(
            (name, place)
            for place, column in enumerate(self.columns)
            for name in slice_names(column.name, column.leading)
        )

    def whole(self, pattern: str) -> set[int]:
        """The places of the columns that a name or glob matches."""
        return {place for _, place in _matching(self._whole, pattern)}

    def slices(self, pattern: str) -> list[tuple[str, int]]:
        """The slices that a glob matches, each with the place of its column; brackets stand for themselves."""
        return _matching(self._slices, pattern.replace("[", "[[]"))

    def any(self, pattern: str) -> set[int]:
        """The places of the columns that match, or one of whose slices does."""
        return self.whole(pattern) | {place for _, place in self.slices(pattern)}


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is the name, or a glob that matches it: `w[3]` is a name and a glob."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _matching(names: Sequence[tuple[str, int]], pattern: str) -> list[tuple[str, int]]:
    start = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    first, last = bisect_left(names, (start, -1)), bisect_left(names, (start + _LAST, -1))
    return [(name, place) for name, place in names[first:last] if fnmatch.fnmatchcase(name, pattern)]
