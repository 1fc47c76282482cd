"""Fits a table into a terminal: the least important columns are left out, and long cells are cut with `…`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from runner.text import aligned, columns_left_out, shortened

_GAP = 2  # spaces between two columns


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of a table. Its cells may be cut to `least` characters; a number is never cut."""

    heading: str
    cells: Sequence[str]
    numbers: bool = False
    least: int | None = None  # None: no cell is cut
    from_start: bool = False  # cells are cut at their start, as paths are

    @property
    def width(self) -> int:
        return max(map(len, (self.heading, *self.cells)))

    @property
    def narrowest(self) -> int:
        """The width below which it is left out."""
        if self.least is None:
            return self.width
        needed = max(map(len, self.cells), default=0) if self.numbers else 0
        return min(self.width, max(self.least, needed))

    def cut(self, width: int) -> Column:
        """The column with at most `width` characters a line. A heading keeps its end: of `optimizer.sgd.lr`, `lr`."""
        cells = [_end(cell, width) if self.from_start else shortened(cell, width) for cell in self.cells]
        return Column(_end(self.heading, width), cells, self.numbers)


def terminal_width() -> int | None:
    """The number of columns of the terminal; None if standard output is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted_table(
    columns: Sequence[Column], kept: Sequence[Column], spare: Sequence[Column], width: int | None, advice: str
) -> list[str]:
    """A table as lines of at most `width` characters, and a line that says what is left out.

    The first column of `kept` is shown always, so lines are longer where it does not fit.

    Args:
        columns: all columns, in the order in which they stand.
        kept: those that are cut before another one is left out, the most important first.
        spare: those that are shown if the others leave room, the most important first.
        width: None for the whole table.
        advice: how to see the rest, for the last line.
    """
    if width is None or sum(column.width + _GAP for column in columns) - _GAP <= width:
        return _lines(columns)
    widths = _widths(kept, spare, width)
    shown = [column for column in columns if column in widths]
    lines = _lines([column.cut(widths[column]) for column in shown])
    left_out = [column.heading for column in columns if column not in widths]
    if left_out:
        return [*lines, columns_left_out(left_out, width, advice)]
    cut = any(widths[column] < column.width for column in columns)
    return [*lines, f"… marks what is cut; {advice}"] if cut else lines


def _lines(columns: Sequence[Column]) -> list[str]:
    rows = zip(*((column.heading, *column.cells) for column in columns), strict=True)
    return [line.rstrip() for line in aligned(list(rows), [column.numbers for column in columns], "")]


def _widths(kept: Sequence[Column], spare: Sequence[Column], width: int) -> dict[Column, int]:
    """The width of each column that is shown. The first one is shown always."""
    whole = {column: column.width for column in (*kept, *spare)}
    widths: dict[Column, int] = {}
    room = width + _GAP
    for column in kept:
        narrowest = column.narrowest
        if not widths or narrowest + _GAP <= room:
            widths[column] = narrowest
            room -= narrowest + _GAP
    while room > 0 and (growing := [column for column in widths if widths[column] < whole[column]]):
        for column in growing[:room]:
            widths[column] += 1
        room -= len(growing[:room])
    for column in spare:
        if column.narrowest + _GAP <= room:
            widths[column] = min(whole[column], room - _GAP)
            room -= widths[column] + _GAP
    return widths


def _end(text: str, width: int) -> str:
    """The text, cut to `width` characters with `…` at the start if it is longer."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]
