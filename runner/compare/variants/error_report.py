"""Reports the errors of two variants as text of at most one screen, and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runner.compare.numbers.growth import Growth
from runner.compare.rows.report import origin, structure, to_json
from runner.compare.variants.error_table import Cell, ErrorTable, Line, Trend
from runner.errors import listing
from runner.text import aligned, counted, finite_json

_GAP = "  "
_FEWEST_TRENDS = 2
_ABSENT = ""
_LEFT_OUT = "…"


def errors_page(table: ErrorTable, *, width: int, height: int) -> list[str]:
    """A table of errors by row and tensor, a table of tensors, and where the difference begins.

    Args:
        width: the largest number of characters in a line.
        height: the intended number of lines; the output is longer if the smallest useful tables do not fit.
    """
    lines = [*structure(table.verdict)]
    if not table.trends:
        counts = f"{counted(table.tensors, 'tensor')} in {counted(table.rows, 'row')}"
        return [*lines, f"nothing {'else ' if lines else ''}differs: {counts}"]
    found = origin(table.verdict, draws=table.draws, width=width)
    born = ["", *found] if found else []
    lines += [*_rows_table(table, width), ""]
    lines += [*_trends_table(table, width, max(height - len(lines) - len(born) - 1, _FEWEST_TRENDS)), *born]
    if len(lines) > height:
        lines = [line for line in lines if line]
    return [line[: width - 1] + _LEFT_OUT if len(line) > width else line for line in lines]


# --- by row


def _rows_table(table: ErrorTable, width: int) -> Iterator[str]:
    """One line for each row, with the tensors that have the largest errors, as many as fit."""
    head = [("row", "step"), *((f"{line.place.number}", line.place.path) for line in table.lines)]
    fixed = aligned(head, right=(True, False))
    first_difference = table.verdict.first_difference
    born = None if first_difference is None else first_difference.divergences[0].column.name
    ranked = sorted(table.trends, key=lambda trend: (trend.name == born, _largest(trend)), reverse=True)
    taken: set[str] = set()
    columns = {trend.name: _column(table, trend.name) for trend in table.trends}
    room = width - len(fixed[0])
    for trend in ranked:
        needed = len(columns[trend.name][0]) + len(_GAP)
        if needed <= room:
            room -= needed
            taken.add(trend.name)
    shown = [trend.name for trend in table.trends if trend.name in taken]
    yield "relative error" + (", and that of the step alone" if table.reinjected else "")
    previous: int | None = None
    for number, start in enumerate(fixed):
        if number:
            row = table.lines[number - 1].place.number
            if previous is not None and row > previous + 1:
                yield f"{_GAP}{_LEFT_OUT} {counted(row - previous - 1, 'row')} {_LEFT_OUT}"
            previous = row
        yield _GAP.join([start, *(columns[name][number] for name in shown)]).rstrip()
    left_out = len(table.trends) - len(shown)
    if left_out:
        do = "does" if left_out == 1 else "do"
        yield f"{_GAP}and {counted(left_out, 'more tensor')} that {do} not fit on the screen"


def _column(table: ErrorTable, name: str) -> list[str]:
    """A tensor's errors as cells of equal width, below its name; if reinjected, also the errors of single steps."""
    found = [line.cells.get(name) for line in table.lines]
    other = name in table.verdict.other_shapes
    errors = [name, *(_ABSENT if cell is None else "shape" if other else _shown(cell.error) for cell in found)]
    if not table.reinjected:
        return aligned([(text,) for text in errors], right=(True,), indent="")
    local = ["alone", *(_ABSENT if cell is None or cell.local is None else _shown(cell.local) for cell in found)]
    return aligned(list(zip(errors, local, strict=True)), right=(True, True), indent="")


# --- by tensor


def _trends_table(table: ErrorTable, width: int, room: int) -> list[str]:
    shown = sorted(table.trends, key=_largest, reverse=True)
    shown = shown if len(shown) <= room else shown[: room - 1]
    trends = [trend for trend in table.trends if trend in shown]
    columns = [(title, cell) for title, cell in _TREND_COLUMNS.items() if table.reinjected or title not in _LOCAL]
    lines: list[str] = []
    for dropped in ("", *_DISPENSABLE):
        columns = [(title, cell) for title, cell in columns if title != dropped]
        rows = [tuple(title for title, _ in columns), *(tuple(cell(trend) for _, cell in columns) for trend in trends)]
        lines = aligned(rows, right=(False, *(True,) * (len(columns) - 2), False))
        if len(lines[0]) <= width:
            break
    left_out = [trend.name for trend in table.trends if trend not in shown]
    if left_out:
        lines.append(f"{_GAP}and {len(left_out)} more: {listing(left_out, 4)}")
    return [line.rstrip() for line in lines]


def _of_growth(field: Callable[[Growth], str], otherwise: str) -> Callable[[Trend], str]:
    return lambda trend: field(trend.growth) if trend.growth is not None else "" if trend.shapes else otherwise


_TREND_COLUMNS: Mapping[str, Callable[[Trend], str]] = {
    "tensor": lambda trend: trend.name,
    "born": lambda trend: "" if trend.born is None else f"{trend.born:,}",
    "first": _of_growth(lambda growth: _shown(growth.first), "0"),
    "last": _of_growth(lambda growth: _shown(growth.last), "0"),
    "largest": lambda trend: trend.shapes or _of_growth(lambda growth: _shown(growth.largest), "0")(trend),
    "in row": _of_growth(lambda growth: f"{growth.largest_number:,}", ""),
    "ULP": lambda trend: "" if trend.ulp is None else f"{trend.ulp:,}",
    "alone": lambda trend: _shown(trend.local),
    "alone in row": lambda trend: "" if trend.local_number is None else f"{trend.local_number:,}",
    "growth": _of_growth(lambda growth: _kind(growth), "alone"),
}
_LOCAL = ("alone", "alone in row")
_DISPENSABLE = ("alone in row", "last", "ULP", "first", "in row")
"""The columns that a narrow table drops, in this order."""


def _kind(growth: Growth) -> str:
    return growth.kind if growth.leap is None else f"{growth.kind} in row {growth.leap.number:,}"


def _largest(trend: Trend) -> float:
    return math.inf if trend.shapes else max(trend.growth.largest if trend.growth else 0.0, trend.local)


def _shown(error: float) -> str:
    return "0" if error == 0 else f"{error:.1e}"


# --- JSON


def errors_json(table: ErrorTable) -> dict[str, Any]:
    """All errors as JSON values; numbers that are not finite become strings."""
    return {
        "rows": table.rows,
        "compared": table.tensors,
        "reinjected": table.reinjected,
        "equal": table.verdict.holds,
        "within_tolerance": None if table.within is None else table.within.holds,
        "tensors": [_trend_json(trend) for trend in table.trends],
        "steps": [_line_json(line) for line in table.lines],
        "verdict": to_json(table.verdict, draws=table.draws),
    }


def _trend_json(trend: Trend) -> dict[str, Any]:
    growth = trend.growth
    return {
        "name": trend.name,
        "born": trend.born,
        "rows": trend.rows,
        "growth": None if growth is None else growth.kind,
        "first": None if growth is None else finite_json(growth.first),
        "last": None if growth is None else finite_json(growth.last),
        "largest": None if growth is None else finite_json(growth.largest),
        "largest_row": None if growth is None else growth.largest_number,
        "leap_row": None if growth is None or growth.leap is None else growth.leap.number,
        "ulp": trend.ulp,
        "largest_local": finite_json(trend.local),
        "largest_local_row": trend.local_number,
    }


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "row": line.place.number,
        "step": line.place.step,
        "path": line.place.path,
        "tensors": {name: _cell_json(cell) for name, cell in line.cells.items()},
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    local = None if cell.local is None else finite_json(cell.local)
    return {"error": finite_json(cell.error), "ulp": cell.ulp, "local": local}
