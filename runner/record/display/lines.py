"""Rows as a table: one line for some of them, spread over the run, and the last row whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from runner.engine.rows import Row
from runner.plan.rows.columns import Column
from runner.record.display.measures import Measure, fitting
from runner.record.display.places import place_of
from runner.record.display.spread import Spread
from runner.record.display.styles import DIM, styler, wants_color
from runner.record.display.whole_rows import RowText
from runner.text import columns_left_out

MOST_WHOLE = 24
"""The most weights and values of the last row that are printed."""

_GAP = "  "


class LinePrinter:
    """Prints some rows of a run as lines of one table, and the last row whole.

    Only rows that have one of the numbers are printed, and only these are read.

    Args:
        columns: the columns of the rows.
        measures: what the table shows, the most important first; what does not fit the terminal is left out.
        spread: chooses the rows.
        stream: the stream to print to.
        rows: the largest number of rows, for the width of their numbers.
        path: the longest path of a row. Paths are shortened if it takes more than a third of the width.
        width, color, before: as those of `RowPrinter`.
        shown: the positions of the columns that were named, for the last row; by default the first `MOST_WHOLE`.
            A stream that is no terminal has room for all their measures.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        measures: Sequence[Measure],
        spread: Spread[Row],
        stream: TextIO,
        *,
        rows: int,
        path: str,
        width: int | None = None,
        color: bool | None = None,
        before: Callable[[], None] | None = None,
        shown: Sequence[int] | None = None,
    ) -> None:
        color = wants_color(stream) if color is None else color
        width = width or shutil.get_terminal_size().columns
        self._stream = stream
        self._before = before
        self._styled = styler(color)
        self._spread = spread
        self._number = max(len(f"{max(rows - 1, 0):,}"), len("row"))
        self._place = place_of(path, width // 3)
        self._path = max(len(self._place(path)), len("path"))
        room = width - self._number - len(_GAP) - self._path
        fits_all = shown is not None and not stream.isatty()
        self._measures = list(measures) if fits_all else fitting(measures, room)
        left_out = [measure.heading for measure in measures if measure not in self._measures]
        advice = "choose with --columns" if shown is None else "name fewer, or widen the terminal"
        note = columns_left_out(left_out, width, advice)
        self._note = f"{note}\n" if note else ""
        deciding = [measure for measure in self._measures if measure.decides]
        self._deciding = tuple(deciding or self._measures)
        self._whole = RowText(columns, width, color, shown, None if shown is not None else MOST_WHOLE)
        self._last: Row | None = None
        self._begun = False

    def __call__(self, row: Row) -> None:
        """Process a row; print it, or rows before it, if the table has a line for them."""
        self._last = row
        has = tuple(measure.is_in(row) for measure in self._deciding)
        if any(has):
            for chosen in self._spread.chosen(row.number, has, row):
                self._print_line(chosen)

    def close(self) -> None:
        """Print the rows that wait, and the last row whole."""
        for row in self._spread.rest():
            self._print_line(row)
        if self._last is not None:
            self._print(self._whole.text(self._last))
            self._last = None
        self._stream.flush()

    def _print_line(self, row: Row) -> None:
        if not self._begun:
            self._begun = True
            self._print(self._styled(self._heading(), DIM))
        cells = [measure.text(row).rjust(measure.width) for measure in self._measures]
        place = [f"{row.number:,}".rjust(self._number), self._place(row.path).ljust(self._path)]
        self._print(_GAP.join([*place, *cells]).rstrip())

    def _heading(self) -> str:
        names = [measure.heading.rjust(measure.width) for measure in self._measures]
        heading = _GAP.join(["row".rjust(self._number), "path".ljust(self._path), *names])
        return f"{self._note}{heading}".rstrip()

    def _print(self, text: str) -> None:
        if self._before is not None:
            self._before()
        self._stream.write(text + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
