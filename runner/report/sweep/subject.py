"""What the sections of a sweep's report are built from: the sweep, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow

from runner.config.text.nodes import MapNode, walk
from runner.config.text.nodes import Path as NodePath
from runner.errors import Problem, SteprunError, UsageError
from runner.report.sweep.curves import MOST_QUANTITIES, Found, read_curves
from runner.report.sweep.points import Points, points_of
from runner.sweep.choosing.objective import Objective
from runner.sweep.record.reading import Sweep, open_sweep

LAST = ".last"

_NO_POINTS = pyarrow.table({"point": pyarrow.array([], pyarrow.int64()), "status": [], "identity": []})


@dataclass(frozen=True, slots=True)
class Subject:
    """A sweep, and what a report shows of it."""

    sweep: Sweep
    points: Points
    objective: Objective | None
    curves: Found
    statuses: Mapping[str, int]  # how many points have each status
    failures: Mapping[str, list[int]]  # the points that failed, by what they say
    text: str | None  # the config
    lines: Mapping[str, int]  # of each axis, the line of the config that it changes
    unreadable: str | None  # why there is no config
    halved_at: tuple[str, ...]  # the iterations at which points are compared, as written
    tabled: bool = True  # whether there is a table of points
    problems: tuple[Problem, ...] = ()  # what is damaged

    @property
    def name(self) -> str:
        return str(self.sweep.manifest.get("name") or self.sweep.path.parent.name)


def read_subject(directory: Path) -> Subject:
    """Read a sweep for its report; of a damaged one, what can be read.

    Raises:
        UsageError: its manifest cannot be read, or is not that of a sweep.
    """
    sweep = open_sweep(directory)
    found, problems = _table(sweep)
    table, axes = (_NO_POINTS, ()) if found is None else (found, sweep.axes)
    unreadable = None
    objective: Objective | None = None
    text: str | None = None
    lines: dict[str, int] = {}
    halved: tuple[str, ...] = ()
    try:
        objective, root = sweep.objective, sweep.config.document.root
        text = sweep.config.document.source.text
        lines = {axis: line for axis in axes if (line := _line_of(root, axis)) is not None}
        declared = None if sweep.config.sweep is None else sweep.config.sweep.halving
        halved = () if declared is None else tuple(map(str, declared.at))
    except SteprunError as error:
        unreadable = error.problems[0].message
    points = points_of(table, axes, objective)
    statuses, numbers = table.column("status").to_pylist(), table.column("point").to_pylist()
    said = table.column("failure").to_pylist() if "failure" in table.column_names else [None] * len(table)
    failures: dict[str, list[int]] = {}
    for number, failure in zip(numbers, said, strict=True):
        if failure:
            failures.setdefault(str(failure), []).append(number)
    curves = read_curves(sweep.path, points.values("identity"), _quantities(points, objective))
    return Subject(
        sweep=sweep,
        points=points,
        objective=objective,
        curves=curves,
        statuses={status: statuses.count(status) for status in dict.fromkeys(statuses)},
        failures=failures,
        text=text,
        lines=lines,
        unreadable=unreadable,
        halved_at=halved,
        tabled=found is not None,
        problems=(*problems, *curves.problems),
    )


def _table(sweep: Sweep) -> tuple[pyarrow.Table | None, tuple[Problem, ...]]:
    """The points of a sweep, or why there are none; a sweep that has just begun has no table yet."""
    try:
        if sweep.status == "running" and not sweep.has_table:
            return None, ()
        return sweep.table(), ()
    except UsageError as error:
        return None, error.problems


def _quantities(points: Points, objective: Objective | None) -> list[str]:
    """The columns whose curves a page has, the objective's first."""
    names = [] if objective is None else [objective.column]
    names += [name.removesuffix(LAST) for name in points.table.column_names if name.endswith(LAST)]
    return list(dict.fromkeys(names))[:MOST_QUANTITIES]


def _line_of(root: MapNode, axis: str) -> int | None:
    """The line of the value that an axis sets: of the shortest path that ends with it, outside of `sweep` first."""
    wanted = tuple(axis.split("."))
    found: list[tuple[bool, int, int]] = []
    for path, node in walk(root):
        if _ends_with(path, wanted) or (path and path[-1] == axis):
            found.append((path[0] == "sweep", len(path), node.source.mark(node.start).line))
    return min(found)[2] if found else None


def _ends_with(path: NodePath, wanted: tuple[str, ...]) -> bool:
    return len(path) >= len(wanted) and tuple(map(str, path[-len(wanted) :])) == wanted
