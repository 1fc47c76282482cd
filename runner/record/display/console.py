"""Chooses how a run is printed: whole rows, a table with one line for some rows, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from runner.errors import Problem, UsageError
from runner.plan import Plan
from runner.plan.program.instructions import Action, Break, LoopStart
from runner.plan.rows.columns import Column, column_hint
from runner.plan.rows.matching import matches
from runner.record.display.lines import LinePrinter
from runner.record.display.measures import measure_of, measures_of
from runner.record.display.spread import Spread
from runner.record.display.tensors import expected_lines
from runner.record.display.whole_rows import RowPrinter

Rows = Literal["full", "lines", "none"]

MOST_LINES = 48
"""The most lines of a run whose rows are printed whole unless asked otherwise."""
FEW_ROWS = 8
"""So few rows are printed whole up to `MOST_LINES_OF_FEW` lines, because a table of them has only a line or two."""
MOST_LINES_OF_FEW = 120


@dataclass(frozen=True, slots=True)
class Printing:
    """How to print a run."""

    rows: Rows
    shown: tuple[int, ...] | None  # the positions of the columns that were named; None: all


def plan_printing(plan: Plan, rows: Rows | None = None, patterns: Sequence[str] | None = None) -> Printing:
    """How to print a run: as asked, or else whole rows if they take at most `MOST_LINES` lines, more if they are few.

    Args:
        patterns: names and globs of the columns to print; None: all.
    Raises:
        UsageError: a pattern matches no column.
    """
    shown = None if patterns is None else matching_columns(plan.columns, patterns)
    return Printing(rows or ("full" if _lines(plan, shown) <= _most_lines(plan) else "lines"), shown)


def matching_columns(columns: Sequence[Column], patterns: Sequence[str]) -> tuple[int, ...]:
    """The positions of the columns that names and globs match, in the order of the patterns.

    Raises:
        UsageError: a pattern matches no column.
    """
    found: dict[int, None] = {}
    for pattern in patterns:
        matching = [position for position, column in enumerate(columns) if matches(column.name, pattern)]
        if not matching:
            raise UsageError(Problem(f"`{pattern}` matches no column", column_hint(pattern, columns)))
        found |= dict.fromkeys(matching)
    return tuple(found)


def printer_of(
    plan: Plan, printing: Printing, stream: TextIO, before: Callable[[], None] | None = None
) -> RowPrinter | LinePrinter:
    """The printer of a run whose rows are printed."""
    if printing.rows == "full":
        return RowPrinter(plan.columns, stream, before=before, shown=printing.shown)
    if printing.shown is None:
        objectives = [*plan.objectives, plan.lowered.result]
        measures = measures_of(plan.columns, objectives)
    else:
        measures = [measure_of(position, plan.columns[position]) for position in printing.shown]
    may_end_early = any(isinstance(item, Break) for item in plan.program)
    return LinePrinter(
        plan.columns,
        measures,
        Spread(plan.estimates.rows, may_end_early),
        stream,
        rows=plan.estimates.rows,
        path=_longest_path(plan),
        before=before,
        shown=printing.shown,
    )


def _most_lines(plan: Plan) -> int:
    return MOST_LINES_OF_FEW if plan.estimates.rows <= FEW_ROWS else MOST_LINES


def _lines(plan: Plan, shown: Sequence[int] | None) -> int:
    """About how many lines all rows take, printed whole."""
    columns = [column for number, column in enumerate(plan.columns) if shown is None or number in shown]
    names = {column.name for column in columns}
    inline = [column for column in columns if column.role == "gradient" and column.name.removesuffix(".grad") in names]
    return plan.estimates.rows * (1 + sum(map(expected_lines, columns)) - sum(map(expected_lines, inline)))


def _longest_path(plan: Plan) -> str:
    times = {item.loop: item.times for item in plan.program if isinstance(item, LoopStart)}
    counts = [times.get(loop, 0) for loop in range(max(times, default=-1) + 1)]
    paths = [item.path.format(*counts) for item in plan.program if isinstance(item, Action) and item.rows]
    return max(paths, key=len, default="")
