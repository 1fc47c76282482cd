"""Draws the progress of a run with rich. Importing this module imports rich."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

WIDE = 76  # columns of a terminal that can fit the bar and the rows
LONGEST_BAR = 40


class Bar:
    """One line at the bottom of a terminal: `━━━━━━━  12%  1,200 of 10,000 rows  9,500/s  0:01 left  loss 0.31`.

    Only `show` draws it, not a background thread; `hide` erases it.

    Args:
        stream: the terminal.
        total: the largest number of rows.
    """

    def __init__(self, stream: TextIO, total: int) -> None:
        console = Console(file=stream)
        self._progress = Progress(
            *_columns(console.width),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("", total=total)

    def show(self, rows: int, rate: float, text: str) -> None:
        """Draw the bar: completed rows, rows per second, and a text."""
        total = self._progress.tasks[0].total
        assert total is not None
        left = max(0.0, total - rows) / rate
        self._progress.update(
            self._task, completed=rows, rate=readable_rate(rate), left=clock_time(round(left)), text=text
        )
        if self._progress.live.is_started:
            self._progress.refresh()
        else:
            self._progress.start()

    def hide(self) -> None:
        """Erase the bar from the terminal."""
        self._progress.stop()


def _columns(width: int) -> list[ProgressColumn]:
    rows = "  {task.completed:,.0f} of {task.total:,.0f} rows" if width >= WIDE else ""
    template = (
        "{task.percentage:3.0f}%" + rows + "  {task.fields[rate]}/s  {task.fields[left]} left  {task.fields[text]}"
    )
    line = TextColumn(template, markup=False)
    if width < WIDE:
        return [line]
    return [BarColumn(min(LONGEST_BAR, width - WIDE + 8), complete_style="green"), line]


def readable_rate(rate: float) -> str:
    """`9,500`, `12`, `0.25`."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def clock_time(seconds: int) -> str:
    """`0:07`, `12:30`, `2:00:00`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
