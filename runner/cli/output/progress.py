"""Shows the progress of a long run, on a terminal only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from runner.cli.output.bar import Bar
    from runner.engine.rows import AnyRows, Row

PATIENCE = 1.0  # seconds before the bar appears
INTERVAL = 0.1  # seconds between two updates of the bar


def can_draw(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a line can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Progress:
    """Follows the rows of a run and shows a progress bar after a while.

    Each row costs one reading of the clock; rich is imported when the bar is first drawn.

    Args:
        stream: the terminal.
        total: the largest number of rows.
        objective: names of columns; the bar shows the first that a row has.
        clock: seconds, monotonic.
    """

    def __init__(
        self, stream: TextIO, total: int, objective: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._total = total
        self._objective = objective
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + PATIENCE
        self._first: int | None = None  # number of the first row seen: a resumed run has earlier ones
        self._text = ""
        self._bar: Bar | None = None

    def __call__(self, row: AnyRows) -> None:
        """Process one row, or some that were computed together."""
        if self._first is None:
            self._first = row.number
        now = self._clock()
        if now >= self._next:
            self._next = now + INTERVAL
            self._draw(row.last, self._first, now - self._begun)

    def _draw(self, row: Row, first: int, elapsed: float) -> None:
        if self._bar is None:
            from runner.cli.output.bar import Bar

            self._bar = Bar(self._stream, self._total)
        self._text = self._objective_of(row) or self._text
        self._bar.show(row.number + 1, (row.number + 1 - first) / elapsed, self._text)

    def _objective_of(self, row: Row) -> str | None:
        for name in self._objective:
            if name in row and (value := row[name]) is not None and value.numel() == 1:
                return f"{name} {value.item():.5g}"
        return None

    def clear(self) -> None:
        """Remove the bar, so that something else can be printed; the next update brings it back."""
        if self._bar is not None:
            self._bar.hide()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()


def compile_progress(stream: TextIO, quiet: bool) -> Callable[[str, float | None], None] | None:
    """A callback that prints each compilation and its duration; None with `quiet`, or if `stream` is not a terminal."""
    if quiet or not can_draw(stream):
        return None

    def report(path: str, seconds: float | None) -> None:
        if seconds is None:
            stream.write(f"\r\x1b[2Kcompiling {path} …")
        else:
            stream.write(f"\r\x1b[2Kcompiled {path} in {seconds:.1f} s\n")
        stream.flush()

    return report
