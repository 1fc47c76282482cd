"""Chooses the points of a sweep that a page shows, the best first, and turns their columns into data for its views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pyarrow

from runner.sweep.choosing.groups import DEVIATION, MEAN, Groups, groups_of
from runner.sweep.choosing.objective import Objective
from runner.text import counted, printable_line, shortened

MOST_POINTS = 4_000
"""The most points that a page shows: the best, those that failed, and others between them."""

MOST_FAILED = 400

MOST_AXES, MOST_RESULTS = 16, 16
"""The most columns of values and of results that a page shows."""

LONGEST_TEXT, LONGEST_OF_MANY, MANY = 300, 80, 200
"""The most characters of a text in a table; fewer if a column has many texts."""

_EXACT = 2**53
_HIDDEN = ("identity", "point")


@dataclass(frozen=True, slots=True)
class Points:
    """The points that a page shows, the best first."""

    table: pyarrow.Table
    total: int
    axes: tuple[str, ...]
    results: tuple[str, ...]  # columns of numbers, the objective first
    left_out: tuple[str, ...]  # sentences
    ranks: tuple[int, ...]  # of each point, from 1; those of one group have one rank
    groups: Groups | None = None  # if the objective is a mean over some axes

    def values(self, name: str) -> list[Any]:
        return list(self.table.column(name).to_pylist())

    @property
    def numbers(self) -> list[int]:
        """The number of each point."""
        return self.values("point")

    @property
    def best(self) -> int | None:
        """The place of the best point, or of the first of the best group; None if no objective is a number."""
        if self.groups is not None:
            return None if self.groups.best is None else 0
        if "objective" not in self.table.column_names or not len(self.table):
            return None
        return 0 if _is_number(self.values("objective")[0]) else None


def points_of(table: pyarrow.Table, axes: Sequence[str], objective: Objective | None) -> Points:
    """Sort the points of a sweep by their objective, and choose those to show.

    Args:
        table: one row for each point, as `Sweep.table` returns it.
    """
    total = len(table)
    order = list(range(total))
    groups = groups_of(table, axes, objective)
    ranks = {} if groups is None else groups.ranks()
    if groups is not None:
        table = groups.added_to(table)
        order = list(ranks)
    elif objective is not None and "objective" in table.column_names:
        values = table.column("objective").to_pylist()
        order.sort(key=lambda place: objective.key(values[place]))
    places = _chosen(order, table.column("status").to_pylist())
    names = [name for name in table.column_names if name not in (*axes, *_HIDDEN, "status", "failure")]
    results = [name for name in (MEAN, DEVIATION) if groups is not None and name in names]
    results += ["objective"] if "objective" in names else []
    results += [name for name in names if name.endswith(".last") and name not in results]
    results += [name for name in names if name not in results]
    left_out = []
    if len(places) < total:
        left_out.append(f"of {counted(total, 'point')} the page has {len(places):,}: the best, and others between them")
    for kind, found, most in (("values", axes, MOST_AXES), ("results", results, MOST_RESULTS)):
        if len(found) > most:
            left_out.append(f"{len(found):,} columns are {kind}; the first {most} are shown")
    shown = table.take(pyarrow.array(places, pyarrow.int64()))
    ranked = tuple(ranks.get(place, number) for number, place in enumerate(places, 1))
    return Points(shown, total, tuple(axes[:MOST_AXES]), tuple(results[:MOST_RESULTS]), tuple(left_out), ranked, groups)


def _chosen(order: Sequence[int], statuses: Sequence[str]) -> list[int]:
    """The places of the rows to show, in the given order."""
    if len(order) <= MOST_POINTS:
        return list(order)
    failed = [rank for rank, place in enumerate(order) if statuses[place] == "failed"][:MOST_FAILED]
    best = MOST_POINTS // 2
    between = numpy.linspace(best, len(order) - 1, MOST_POINTS - best - len(failed)).astype(int).tolist()
    return [order[rank] for rank in sorted({*range(best), *failed, *between})]


def columns_data(points: Points) -> list[dict[str, Any]]:
    """The columns of the table as data: numbers as arrays, texts as places in a list of different texts."""
    ranked = [{"name": free_name("rank", points.axes), "kind": "place", **numbers_data(points.ranks)}]
    found = ranked if points.best is not None else []
    found.append({"name": "point", "kind": "place", **numbers_data(points.numbers)})
    found += [_column(points, name, "axis") for name in points.axes]
    found.append(_column(points, "status", "status"))
    found += [_column(points, name, "result") for name in points.results]
    if "failure" in points.table.column_names and any(points.values("failure")):
        found.append(_column(points, "failure", "text"))
    return found


def free_name(name: str, axes: Sequence[str]) -> str:
    """The name of a column that is no axis; an axis keeps its own."""
    return f"{name} of the point" if name in axes else name


def _column(points: Points, name: str, kind: str) -> dict[str, Any]:
    values = points.values(name)
    known = [value for value in values if value is not None]
    if known and all(_is_plain_number(value) for value in known):
        return {"name": name, "kind": kind, **numbers_data(values)}
    return {"name": name, "kind": kind, **texts_data(values)}


def _is_plain_number(value: Any) -> bool:
    return not isinstance(value, (bool, str)) and (isinstance(value, float) or abs(value) <= _EXACT)


def _is_number(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def numbers_data(values: Sequence[float | None]) -> dict[str, Any]:
    """Numbers as an array, and which of them exist if some do not."""
    numbers = numpy.asarray([math.nan if value is None else value for value in values], dtype=numpy.float64)
    missing = [value is None for value in values]
    return {"numbers": numbers, **({"known": 1 - numpy.asarray(missing, dtype=numpy.uint8)} if any(missing) else {})}


def texts_data(values: Sequence[Any]) -> dict[str, Any]:
    """Texts as places in a list of the different ones."""
    texts = ["" if value is None else written(value) for value in values]
    longest = LONGEST_TEXT if len(set(texts)) <= MANY else LONGEST_OF_MANY
    texts = [shortened(printable_line(each), longest) for each in texts]
    different = {each: place for place, each in enumerate(dict.fromkeys(texts))}
    return {"texts": list(different), "at": numpy.asarray([different[each] for each in texts], dtype=numpy.uint32)}


def written(value: Any) -> str:
    """A value of a point as short text; empty without one."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
