"""Groups the points of a sweep whose objective is a mean over some axes, such as folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.sweep.choosing.best import Best
from runner.sweep.choosing.objective import Objective, averaged, mean_of
from runner.sweep.points.axis import MEAN_COLUMNS
from runner.sweep.points.space import Point

if TYPE_CHECKING:
    import pyarrow

MEAN, DEVIATION = MEAN_COLUMNS
"""The columns that the points of a group have in common."""


@dataclass(frozen=True, slots=True)
class Group:
    """Points that differ only in the axes over which the objective is a mean."""

    values: tuple[Any, ...]  # of the other axes
    mean: float | None  # None: a point was not measured
    deviation: float | None
    places: tuple[int, ...]  # of its points in the table
    missing: int = 0  # how many of them were not measured


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a sweep, the best first."""

    axes: tuple[str, ...]  # the axes whose values define a group
    over: tuple[str, ...]  # the axes over which the objective is a mean
    groups: tuple[Group, ...]

    @property
    def best(self) -> Group | None:
        """The best group; None if no mean is a number."""
        first = next(iter(self.groups), None)
        return None if first is None or first.mean is None or math.isnan(first.mean) else first

    def ranks(self) -> dict[int, int]:
        """The rank of each point: that of its group, from 1."""
        return {place: rank for rank, group in enumerate(self.groups, 1) for place in group.places}

    def added_to(self, table: pyarrow.Table) -> pyarrow.Table:
        """The table with the columns `mean` and `deviation`."""
        import pyarrow

        for name in (MEAN, DEVIATION):
            found: list[float | None] = [None] * len(table)
            for group in self.groups:
                for place in group.places:
                    found[place] = getattr(group, name)
            if name not in table.column_names:
                place = table.column_names.index("objective")
                table = table.add_column(place, name, pyarrow.array(found, pyarrow.float64()))
        return table


def groups_of(table: pyarrow.Table, axes: Sequence[str], objective: Objective | None) -> Groups | None:
    """The groups of a sweep; None if each point is ranked by its own objective.

    Args:
        table: one row for each point, as `Sweep.table` returns it.
    """
    if objective is None or not objective.mean_over or "objective" not in table.column_names:
        return None
    kept = tuple(axis for axis in axes if not averaged(axis, objective.mean_over))
    columns = [table.column(axis).to_pylist() for axis in kept]
    found: dict[tuple[Any, ...], list[int]] = {}
    for place in range(len(table)):
        found.setdefault(tuple(column[place] for column in columns), []).append(place)
    values = table.column("objective").to_pylist()
    groups = [
        Group(
            setting,
            *mean_of([values[place] for place in places]),
            tuple(places),
            sum(values[place] is None for place in places),
        )
        for setting, places in found.items()
    ]
    groups.sort(key=lambda group: (objective.key(group.mean), group.places[0]))
    return Groups(kept, objective.mean_over, tuple(groups))


@dataclass(slots=True)
class Means:
    """The best mean so far, as points end; a group counts when all of its points have ended."""

    objective: Objective
    points: Sequence[Point]
    _groups: dict[int, list[int]] = field(default_factory=dict)  # of each point, its group
    _values: dict[int, float | None] = field(default_factory=dict)
    _best: Best = field(init=False)  # by the first point of a group

    def __post_init__(self) -> None:
        self._best = Best(self.objective)
        found: dict[tuple[Any, ...], list[int]] = {}
        for point in self.points:
            kept = [each for each in point.values.items() if not averaged(each[0], self.objective.mean_over)]
            group = found.setdefault(tuple((path, repr(value)) for path, value in kept), [])
            group.append(point.index)
            self._groups[point.index] = group

    def add(self, index: int, value: float | None) -> None:
        """A point has this objective now."""
        self._values[index] = value
        group = self._groups.get(index, [])
        if any(member not in self._values for member in group):
            return
        if group:
            mean, _ = mean_of([self._values[member] for member in group])
            self._best.add(group[0], mean)

    @property
    def best(self) -> tuple[float, int, int] | None:
        """The mean, the first point and the number of points of the best group; None if no mean is a number."""
        found = self._best.found
        return None if found is None else (*found, len(self._groups[found[1]]))
