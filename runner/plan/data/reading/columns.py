"""What the columns of a table hold, found in one pass over a text table, and a second one over columns of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from runner.config import Dialect
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.cells import Array, Numbers, Words, number_of
from runner.plan.data.tables.conversions import as_floating
from runner.plan.data.tables.text_table import Found, MixedKinds, first_inexact, text_blocks

MOST_DISTINCT = 10_000
"""Maximum distinct values to count."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


@dataclass(slots=True)
class ColumnSummary:
    """What one column of a table holds."""

    name: str
    decimal: str = "."
    rows: int = 0
    missing: int = 0
    is_readable: bool = True  # whether it has numbers or text; otherwise its kind is its type
    kinds: set[str] = field(default_factory=set)
    least: Any = None
    largest: Any = None
    distinct: set[str] | None = field(default_factory=set)  # of text; None: more than `MOST_DISTINCT`

    @property
    def kind(self) -> str:
        """The kind of all cells that are not missing."""
        if self.kinds <= {"integers", "numbers"} and self.kinds:
            return "numbers" if "numbers" in self.kinds else "integers"
        return next(iter(self.kinds)) if len(self.kinds) == 1 else "text" if self.kinds else "nothing"

    def add(self, cells: Numbers | Words, absent: Sequence[str]) -> None:
        """Add some cells."""
        if isinstance(cells, Words):
            self.rows += len(cells.codes)
            counts = numpy.bincount(cells.codes, minlength=len(cells.words)).tolist()
            self._words(cells.words, counts, absent)
            return
        self.rows += len(cells.values)
        there = _present(cells)
        self.missing += len(cells.values) - len(there)
        if len(there):
            self.kinds.add({"b": "booleans", "i": "integers"}.get(there.dtype.kind, "numbers"))
            self._range(there.min().item(), there.max().item())

    def _words(self, words: Sequence[str], counts: Sequence[int], absent: Sequence[str]) -> None:
        for word, count in sorted(zip(words, counts, strict=True)):
            if count and word in absent:
                self.missing += count
            elif count:
                self._word(word)

    def _word(self, word: str) -> None:
        number = number_of(word, self.decimal)
        self.kinds.add("dates" if _DATE.fullmatch(word) else "text" if number is None else _kind(number))
        self._range(*(2 * [word if number is None else number]))
        if self.distinct is not None:
            self.distinct.add(word)
            if len(self.distinct) > MOST_DISTINCT:
                self.distinct = None

    def _range(self, least: Any, largest: Any) -> None:
        if self.least is None or isinstance(least, str) == isinstance(self.least, str):
            self.least = least if self.least is None else min(self.least, least)
            self.largest = largest if self.largest is None else max(self.largest, largest)


def columns_of_text(
    paths: Sequence[Path], dialect: Dialect, names: Sequence[str], absent: Sequence[str]
) -> list[ColumnSummary]:
    """What the columns of a text table hold: as numbers if every cell is a number or missing, else as text.

    Raises:
        FileFault: the table is malformed, or has no rows.
    """
    found = {name: ColumnSummary(name, dialect.decimal) for name in names}
    texts = _add_numbers(paths, dialect, found)
    for name in texts:
        found[name] = ColumnSummary(name, dialect.decimal)
    if texts:
        for _, cells, _ in text_blocks(paths, dialect, [(name, True) for name in texts]):
            for name in texts:
                _add(found[name], cells[name, True], absent)
    for column in found.values():
        _finish(column)
    return list(found.values())


def _add_numbers(paths: Sequence[Path], dialect: Dialect, found: dict[str, ColumnSummary]) -> list[str]:
    """Adds the columns of numbers, and returns the others, whose summaries are only of some rows."""
    left = {(name, False): column for name, column in found.items()}
    floating: set[str] = set()  # columns with floats in some part
    inexact: set[str] = set()  # columns with an integer in some part that float64 cannot represent
    mixed = MixedKinds(paths)
    rows = 0
    for _, cells, count in text_blocks(paths, dialect, list(left)):
        rows += count
        for key in list(left):
            part = cells.get(key)
            if not isinstance(part, Numbers) or mixed.is_mixed(key, part):
                del left[key]
                continue
            left[key].add(part, ())
            if part.values.dtype == numpy.float64:
                floating.add(key[0])
            elif part.values.dtype == numpy.int64 and first_inexact(part.values) is not None:
                inexact.add(key[0])
    if not rows:
        what = "has a header and no rows" if dialect.header is True else "has no rows"
        raise FileFault(f"{paths[0].name} {what}", "add rows")
    kept = {key[0] for key in left} - (floating & inexact)
    return [name for name in found if name not in kept]


def _add(column: ColumnSummary, cells: Found, absent: Sequence[str]) -> None:
    assert not isinstance(cells, FileFault)
    column.add(cells, absent)


def _present(cells: Numbers) -> Array:
    """The numbers that are not missing; booleans beside missing ones are read as floating numbers."""
    missing = cells.missing is not None and bool(cells.missing.any())
    if missing and cells.values.dtype == numpy.int64:
        return cells.values[~cells.missing]  # type: ignore[operator]
    values = as_floating(cells).values if missing else cells.values
    return values[~numpy.isnan(values)] if values.dtype.kind == "f" else values


def _finish(column: ColumnSummary) -> None:
    """Booleans of which some are missing are numbers, and so are integers beside floats."""
    if column.kinds == {"booleans", "numbers"}:
        column.kinds = {"numbers"}
    if column.kind == "numbers" and not isinstance(column.least, str):
        column.least, column.largest = _as_float(column.least), _as_float(column.largest)


def _as_float(number: float | int) -> float | int:
    """The number as a float, unless that would be another one."""
    return float(number) if float(number) == number else number


def _kind(number: float | int) -> str:
    return "integers" if isinstance(number, int) else "numbers"
