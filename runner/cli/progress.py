"""A progress bar for long runs, on a terminal only."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

PATIENCE = 1.0  # seconds before the bar appears
INTERVAL = 0.1  # seconds between two pictures of it
BAR = 24


class Progress:
    """Counts rows; draws `12%  1,200 of 10,000 rows  9,500/s  0:01 left` over its own line.

    Args:
        total: rows at most.
        clock: seconds, always rising.
    """

    def __init__(self, stream: TextIO, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._total = total
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + PATIENCE
        self._seen = 0
        self._drawn = False

    def __call__(self, row: object) -> None:
        """One more row."""
        self._seen += 1
        now = self._clock()
        if now >= self._next:
            self._next = now + INTERVAL
            self._stream.write("\r\x1b[2K" + self.text(now - self._begun))
            self._stream.flush()
            self._drawn = True

    def text(self, elapsed: float) -> str:
        share = min(1.0, self._seen / self._total)
        rate = self._seen / elapsed
        left = round((self._total - self._seen) / rate) if self._seen < self._total else 0
        filled = round(BAR * share)
        bar = "━" * filled + " " * (BAR - filled) + " "
        told = f"{share:4.0%}  {self._seen:,} of {self._total:,} rows  {rate:,.0f}/s  {_clock_time(left)} left"
        width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be drawn over
        return (bar + told if len(bar + told) <= width else told.lstrip())[:width]

    def clear(self) -> None:
        """Remove the bar, so that something else can be printed."""
        if self._drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()


def _clock_time(seconds: int) -> str:
    """`0:07`, `12:30`, `2:00:00`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
