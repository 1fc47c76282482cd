"""`steprun show --uncertainty`: the significant decimal digits of each tensor, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.cli.output.plan_text import table
from runner.compare.numbers.bounds import Uncertainty, significant_digits
from runner.compare.numbers.tolerances import root_mean_square
from runner.compare.snapshots import capture
from runner.compare.uncertainty.meaning import digits
from runner.compare.uncertainty.measuring import Measurement, Progress, measure
from runner.config import Config
from runner.engine import Row, execute
from runner.language.dtypes import dtype_name
from runner.plan import Plan
from runner.plan.rows.columns import Column
from runner.plan.snapshots import observed_by_snapshot

MOST_ROWS = 40
"""The most rows that a table shows. If there are more: the first, the last, and others at equal distances."""
EXACT = "exact"
_CELL, _GAP = len(EXACT), 2

Described = Mapping[str, Any]


def measurable(config: Config) -> Config:
    """The config with the rows of its snapshot, the eager engine and the CPU: only these can be perturbed."""
    return capture.measurable(observed_by_snapshot(config))


def describe_digits(plan: Plan, runs: int, budget: float, progress: Progress | None = None) -> dict[str, Any]:
    """The significant decimal digits of each tensor in each row of a plan, as plain values.

    A tensor has `None` in rows without it. `exact` marks integers and booleans that no perturbed run changed.

    Args:
        plan: of a `measurable` config.
        runs, budget, progress: as for `measure`.
    Raises:
        RunError: the plain run fails.
    """
    rows = list(execute(plan))
    measurement = measure(plan, rows, runs=runs, budget=budget, progress=progress)
    return {
        "name": plan.name,
        "runs": measurement.runs,
        "notes": list(measurement.notes),
        "tensors": [_tensor(column) for column in plan.columns],
        "rows": [_row(row, plan.columns, measurement) for row in rows],
    }


def _tensor(column: Column) -> dict[str, Any]:
    most = significant_digits(0, 1, column.dtype) if _rounds(column) else None
    return {"name": column.name, "dtype": dtype_name(column.dtype), "most": None if most is None else round(most, 2)}


def _row(row: Row, columns: Sequence[Column], measurement: Measurement) -> dict[str, Any]:
    uncertain = measurement.rows[row.number]
    found = {column.name: _digits(row, column, uncertain) for column in columns}
    return {"row": row.number, "path": row.path, "digits": found}


def _digits(row: Row, column: Column, uncertain: Mapping[str, Uncertainty]) -> float | str | None:
    value = row[column.name]
    if value is None or not value.numel():
        return None
    if _rounds(column):
        found = digits(row, column, uncertain)
    elif uncertain[column.name].largest == 0:
        return EXACT
    else:
        found = significant_digits(uncertain[column.name].rms, root_mean_square(value), column.dtype)
    return None if found is None else round(found, 2)


def _rounds(column: Column) -> bool:
    return column.dtype.is_floating_point or column.dtype.is_complex


# --- as text


def digits_page(described: Described, width: int) -> str:
    """The text of `describe_digits`: one line for each row, or one for each tensor if they do not fit into `width`.

    Args:
        width: columns of the terminal.
    """
    return "\n".join(_lines(described, width))


def _lines(described: Described, width: int) -> Iterator[str]:
    tensors, rows = described["tensors"], described["rows"]
    yield f"{described['name']}: decimal digits that rounding leaves, from {described['runs']} perturbed runs"
    most = {tensor["dtype"]: tensor["most"] for tensor in tensors if tensor["most"] is not None}
    if most:
        yield "at most " + ", ".join(f"{_shown(each)} in {dtype}" for dtype, each in most.items())
    names = [tensor["name"] for tensor in tensors]
    wide = _rows_down(_spread(rows, MOST_ROWS), names)
    if max(map(len, wide)) <= width:
        shown = min(len(rows), MOST_ROWS)
        yield from wide
    else:
        head = _GAP + max(map(len, (*names, "tensor")))
        cell = _GAP + max(_CELL, len(str(rows[-1]["row"])))
        shown = min(len(rows), max(2, (width - head) // cell))
        yield from _tensors_down(_spread(rows, shown), names)
    if shown < len(rows):
        yield f"{shown} of {len(rows):,} rows; --json has all"
    yield from described["notes"]


def _rows_down(rows: Sequence[Described], names: Sequence[str]) -> list[str]:
    cells = [[row["row"], row["path"], *(_shown(row["digits"][name]) for name in names)] for row in rows]
    return table([("row", "step", *names), *cells])


def _tensors_down(rows: Sequence[Described], names: Sequence[str]) -> list[str]:
    cells = [[name, *(_shown(row["digits"][name]) for row in rows)] for name in names]
    return table([("tensor", *(row["row"] for row in rows)), *cells])


def _spread(rows: Sequence[Described], most: int) -> list[Described]:
    """At most `most` of the rows at equal distances, including the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def _shown(found: float | str | None) -> str:
    return "" if found is None else found if isinstance(found, str) else f"{math.floor(found * 10) / 10:.1f}"
