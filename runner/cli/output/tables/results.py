"""Prints the table of a sweep."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.cli.output.printing import say, say_json
from runner.cli.output.tables.fitted import Column, fitted_table, terminal_width
from runner.errors import Problem, UsageError, did_you_mean
from runner.text import printable_line

if TYPE_CHECKING:
    import pyarrow

_HIDDEN = ("identity",)
_MOST_SCALARS = 4
"""The most scalar columns that the printed table shows; `--csv` and `--json` have all."""


def print_results(
    directory: str, by: str | None, best: int | None, group_by: list[str] | None, as_csv: bool, as_json: bool
) -> None:
    """Print the points of a sweep: the best first if it has an objective, otherwise in their order.

    Raises:
        UsageError: the folder is not a sweep directory, there is no such column, or nothing says which point is best.
    """
    from runner.config.files.run_paths import resolved_sweep
    from runner.sweep.choosing.groups import groups_of
    from runner.sweep.record.reading import open_sweep

    sweep = open_sweep(resolved_sweep(directory))
    table = sweep.table()
    objective = sweep.objective
    smaller = objective is None or objective.minimize
    ranks: Mapping[int, int] = {}
    if group_by is not None:
        column = _column(by.removeprefix("-"), table) if by is not None else None
        table = _grouped(table, sweep.axes, group_by, column)
        if by is None or column is not None:
            by, smaller = "-mean" if by and by.startswith("-") else "mean", smaller or column is not None
    elif by is None and (groups := groups_of(table, sweep.axes, objective)) is not None:
        table, ranks = groups.added_to(table), groups.ranks()
    by = by or ("objective" if "objective" in table.column_names else None)
    if best is not None and by is None:
        message = "no point is the best one, because the sweep has no objective"
        raise UsageError(Problem(message, "sort by a column with --by, such as `--by loss`"))
    found = [table.to_pylist()[place] for place in ranks] if ranks else _sorted(table, by, smaller)
    rows = found[: best or None]
    names = [name for name in table.column_names if name not in _HIDDEN]
    if as_json:
        say_json([{name: row[name] for name in names} for row in rows])
    elif as_csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if row[name] is None else row[name] for name in names] for row in rows])
        say(text.getvalue().removesuffix("\n"))
    else:
        say("\n".join(_lines(table, rows, _shown(table, names, sweep.axes), sweep.axes, by)))


def _lines(
    table: pyarrow.Table, rows: Sequence[Mapping[str, Any]], shown: Sequence[str], axes: Sequence[str], by: str | None
) -> list[str]:
    """The printed table. A narrow terminal keeps the point, what sorts the points, axes, failures, and statuses that
    differ.
    """
    right = dict(zip(shown, _right(table, shown), strict=True))
    least = dict.fromkeys(axes, 6) | {"failure": 12}
    columns = {name: Column(name, [_cell(row[name]) for row in rows], right[name], least.get(name)) for name in shown}
    sorts = (by or "").removeprefix("-")
    different = ["status"] if len({row.get("status") for row in rows}) > 1 else []
    first = ["point", "mean" if "mean" in columns and sorts == "objective" else sorts, f"{sorts}.last"]
    kept = [name for name in dict.fromkeys([*first, *axes, "failure", *different]) if name in columns]
    results = ["objective", "mean", "deviation", *(name for name in shown if name.endswith(".last"))]
    spare = [name for name in dict.fromkeys([*results, *shown]) if name in columns and name not in kept]
    return fitted_table(
        list(columns.values()),
        [columns[name] for name in kept],
        [columns[name] for name in spare],
        terminal_width(),
        "--csv shows all",
    )


def _shown(table: pyarrow.Table, names: Sequence[str], axes: Sequence[str]) -> list[str]:
    """The columns of the printed table: axes, status, objective, some scalars, failures."""
    scalars = [name for name in names if name.endswith(".last")][:_MOST_SCALARS]
    hidden = {name for name in names if name.endswith((".last", ".min", ".max")) and name not in (*scalars, *axes)}
    empty = {name for name in ("failure",) if name in names and table.column(name).null_count == len(table)}
    return [name for name in names if name not in hidden | empty]


def _right(table: pyarrow.Table, names: Sequence[str]) -> list[bool]:
    import pyarrow

    types = (table.schema.field(name).type for name in names)
    return [pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) for kind in types]


def _sorted(table: pyarrow.Table, by: str | None, smaller: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    if by is None:
        return rows
    largest_first = by.startswith("-") and by not in table.column_names
    by = by[1:] if largest_first else by
    if by not in table.column_names and f"{by}.last" in table.column_names:
        by = f"{by}.last"
    if by not in table.column_names:
        names = [name.removesuffix(".last") for name in table.column_names if not name.endswith((".min", ".max"))]
        hint = did_you_mean(by, names, f"columns are {', '.join(names)}")
        raise UsageError(Problem(f"the table has no column `{by}`", hint))

    def key(row: dict[str, Any]) -> tuple[bool, Any]:
        value = row[by]
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if missing:
            return (True, 0)
        return (False, value)

    descends = largest_first or (not smaller and by in ("objective", "mean"))
    there = sorted((row for row in rows if not key(row)[0]), key=key, reverse=descends)
    return [*there, *(row for row in rows if key(row)[0])]


def _column(name: str, table: pyarrow.Table) -> str | None:
    """The column of results, such as `loss.last`, that a name means; None if it means an axis or something else."""
    found = next((each for each in (name, f"{name}.last") if each in table.column_names), "")
    return found if found.endswith((".last", ".min", ".max")) else None


def _grouped(table: pyarrow.Table, axes: Sequence[str], names: Sequence[str], column: str | None) -> pyarrow.Table:
    """The mean and the sample standard deviation of a column, or of the objective, for each value of some axes."""
    import pyarrow

    from runner.sweep.choosing.objective import mean_of

    column = column or "objective"
    if column not in table.column_names:
        hint = "name a column to average with --by, such as `--by loss`"
        raise UsageError(Problem("the sweep has no objective to average", hint))
    paths = [_axis(name.strip(), axes) for name in names]
    groups: dict[tuple[Any, ...], list[float | None]] = {}
    for row in table.to_pylist():
        groups.setdefault(tuple(row[path] for path in paths), []).append(row[column])
    columns: dict[str, list[Any]] = {path: [key[place] for key in groups] for place, path in enumerate(paths)}
    columns |= {"mean": [], "deviation": [], "points": []}
    for values in groups.values():
        mean, deviation = mean_of(values)
        columns["mean"].append(mean)
        columns["deviation"].append(deviation)
        columns["points"].append(len(values))
    return pyarrow.table(columns)


def _axis(name: str, axes: Sequence[str]) -> str:
    found = [path for path in axes if name in (path, path.rpartition(".")[2])]
    if not found:
        raise UsageError(
            Problem(f"the sweep has no axis `{name}`", did_you_mean(name, axes, f"axes are {', '.join(axes)}"))
        )
    return found[0]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable_line(str(value))
