"""Which rows of a long run are printed: some of each kind, spread over the whole run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

ABOUT = 20
"""About how many rows are printed."""

_MOST_KINDS = 6


class Spread(Generic[T]):
    """Chooses rows as they come: the first of each kind at once, then the last of each kind in each part of the run.

    Args:
        total: the largest number of rows.
        may_end_early: whether there may be fewer. Then the parts are short at first, and grow with the run.
        about: about how many rows to choose, of all kinds together.
    """

    def __init__(self, total: int, may_end_early: bool, about: int = ABOUT) -> None:
        self._total = total
        self._may_end_early = may_end_early
        self._about = about
        self._kinds: set[Hashable] = set()
        self._waiting: dict[Hashable, T] = {}  # the last row of each kind in this part
        self._first: int | None = None  # number of the first row: a resumed run has earlier ones
        self._end = 0  # the number of the row that ends this part

    def chosen(self, number: int, kind: Hashable, row: T) -> Iterator[T]:
        """Takes the row of a number, and yields the rows to print now, in order."""
        if self._first is None:
            self._first = number
        is_new = kind not in self._kinds
        if is_new and len(self._kinds) < _MOST_KINDS:
            self._kinds.add(kind)
        elif is_new:
            kind, is_new = None, False
        self._waiting.pop(kind, None)
        self._waiting[kind] = row
        if is_new or number >= self._end:
            self._end = number + self._length(number, self._first)
            yield from self.rest()

    def rest(self) -> Iterator[T]:
        """Yields the rows that wait, in order."""
        waiting, self._waiting = self._waiting, {}
        yield from waiting.values()

    def _length(self, number: int, first: int) -> int:
        """The number of rows of the next part."""
        length = (self._total - first) // self._about
        if self._may_end_early:
            length = min(length, (number - first) // 2)
        return max(length * len(self._kinds), 1)
