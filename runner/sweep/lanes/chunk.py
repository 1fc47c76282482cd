"""Runs the lanes of one chunk, and compares two of them with runs alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import pyarrow

from runner.config import overridden
from runner.engine.lanes.execute import first_rows
from runner.engine.lanes.operations.tensor import NotStackable
from runner.engine.lanes.starting import Lane
from runner.errors import SteprunError
from runner.plan import Plan, compile
from runner.plan.memory import limited_data
from runner.record.rows.storage import StoredColumn, stored_column
from runner.sweep.lanes.closeness import judge
from runner.sweep.lanes.comparing import Difference, difference_between
from runner.sweep.lanes.grouping import NUMBER
from runner.sweep.lanes.literals import Literals
from runner.sweep.lanes.rows import parted_table, recent_of, rows_table, statistics_of, weights_table
from runner.sweep.lanes.states import load_places
from runner.sweep.lanes.together import Together
from runner.sweep.lanes.varying import varying
from runner.sweep.points.outcome import Outcome, Statistics
from runner.sweep.points.task import Task
from runner.sweep.record.part_files import Ended, Weights
from runner.sweep.record.states import States
from runner.sweep.record.statistics import recent_values, scalar_statistics
from runner.sweep.rungs import cut
from runner.sweep.single import Work, failure_text, run_point

ENDS_BEFORE = "its last loop ends before the points are compared"

NOT_SOUND = "a number is not finite, or an `expect` does not hold"
"""Why a lane runs again alone, which then may fail as it does alone."""

NOT_A_RATE = "its learning rate is not valid"


class Stopped(Exception):
    """The sweep was interrupted; nothing of the chunk is recorded."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became of the lanes of a chunk."""

    outcomes: Sequence[Outcome] = ()  # in the order of the rows
    columns: Sequence[StoredColumn] = ()
    rows: pyarrow.Table | None = None
    weights: Weights | None = None
    alone: Sequence[Task] = ()  # points that have to run alone, each with the reason
    states: States = field(default_factory=dict)  # of the points that can go on


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a chunk, and the point that it is of."""

    plan: Plan
    overrides: tuple[str, ...]


def run_chunk(work: Work, tasks: Sequence[Task], stopping: Callable[[], bool]) -> Chunk:
    """Run some points as lanes.

    Args:
        tasks: points that differ only in what lanes may differ in.
        stopping: returns whether to give up.
    Raises:
        Stopped: `stopping` has returned true.
    """
    began = time.perf_counter()

    def go_on() -> None:
        if stopping():
            raise Stopped

    try:
        plan = _planned(work, tasks[0])
        may_vary = varying(work.base, plan)
        valid: list[tuple[Task, Lane]] = []
        invalid: list[Task] = []
        literals = Literals(plan)
        for task in tasks:
            own = may_vary.split(task.overrides)[0]
            lane = may_vary.lane(plan, own)
            if lane is None:
                invalid += _alone([task], NOT_A_RATE)
            elif may_vary.in_expression(own) and not _is_alike(work, task, literals):
                invalid += _alone([task], NUMBER)
            else:
                valid.append((task, lane))
        if not valid:
            return Chunk(alone=invalid)
        numbered, numbers = literals.inputs()
        lanes = [
            replace(lane, numbers={name: values[place] for name, values in numbers.items()})
            for place, (_, lane) in enumerate(valid)
        ]
        part = None if tasks[0].until is None else cut(numbered, tasks[0].until)
        together = Together(numbered if part is None else part, lanes, pauses=part is not None)
        starts = load_places(work.directory, [task for task, _ in valid])
        with limited_data(plan.memory):
            together.run(starts, work.exact, go_on)
    except NotStackable as error:
        return Chunk(alone=_alone(tasks, str(error)))
    except (SteprunError, MemoryError) as error:
        return Chunk(alone=_alone(tasks, f"the lanes failed: {failure_text(error)}"))
    running = [task for task, _ in valid]
    seconds = (time.perf_counter() - began) / len(running)
    return _result(work, Planned(plan, tasks[0].overrides), running, together, seconds, invalid, go_on)


def _result(
    work: Work,
    planned: Planned,
    tasks: Sequence[Task],
    together: Together,
    seconds: float,
    invalid: Sequence[Task],
    going_on: Callable[[], None],
) -> Chunk:
    plan, kept = planned.plan, together.kept
    ended = [lane for lane, fine in enumerate(together.sound) if fine]
    sound = [lane for lane in ended if lane in kept] if together.pauses else ended
    alone = [*invalid, *_alone([task for task, fine in zip(tasks, together.sound, strict=True) if not fine], NOT_SOUND)]
    alone += _alone([tasks[lane] for lane in ended if lane not in sound], ENDS_BEFORE)
    columns = [stored_column(column) for column in plan.columns]
    if not sound:
        return Chunk(alone=alone)
    indices = [tasks[lane].index for lane in sound]
    rows = _Rows(work, together, columns, sound, indices)
    weights = weights_table(plan, together, indices, sound)
    found = _compared(work, planned, [tasks[lane] for lane in sound], rows, weights[1], going_on)
    if found.reason is not None:
        again = _alone([tasks[lane] for lane in sound], found.reason)
        return Chunk(alone=[*alone, *(replace(task, warning=found.warnings.get(task.index)) for task in again)])
    difference = found.difference
    outcomes = [
        Outcome(
            tasks[lane].index,
            tasks[lane].identity,
            tasks[lane].overrides,
            "paused" if together.pauses else "finished",
            round(seconds, 6),
            rung=tasks[lane].rung,
            alone="",
            difference=None if difference is None else difference.text,
            distance=None if difference is None else difference.size,
            warning=found.warnings.get(tasks[lane].index),
        )
        for lane in sound
    ]
    whole = rows.statistics(outcomes, [together.ends[lane] for lane in sound])
    states = {}
    if together.pauses:
        kept_parts = rows.statistics(outcomes, [place.rows[number] for place, number in map(kept.__getitem__, sound)])
        whole = [replace(outcome, kept=part) for outcome, part in zip(whole, kept_parts, strict=True)]
        for lane in sound:
            state, number = kept[lane]
            states[tasks[lane].identity] = state.state_of(number)
    return Chunk(whole, columns, rows.table, weights, alone, states)


class _Rows:
    """The rows of all lanes of a chunk, lane by lane."""

    def __init__(
        self,
        work: Work,
        together: Together,
        columns: Sequence[StoredColumn],
        lanes: Sequence[int],
        indices: Sequence[int],
    ) -> None:
        self._work = work
        self._columns = columns
        self._lanes = lanes
        self._first = [together.first[lane] for lane in lanes]
        self._counts = [together.ends[lane] - together.first[lane] for lane in lanes]
        self._starts = [0, *accumulate(self._counts)]
        self._ran = together.parts[0][0] if len(together.parts) == 1 and together.parts[0][0].has is None else None
        if self._ran is None:
            self.table = parted_table(together, columns, indices, lanes)
        else:
            self.table = rows_table(self._ran, columns, indices, lanes)

    def of(self, place: int) -> pyarrow.Table:
        """The rows of one lane, as those of the run alone."""
        return self.table.slice(self._starts[place], self._counts[place]).drop_columns(["point"])

    def statistics(self, outcomes: Sequence[Outcome], ends: Sequence[int]) -> list[Outcome]:
        """The outcomes of all lanes with what their rows say.

        Args:
            ends: for each lane the number of the first row that does not count.
        """
        counts = [end - first for end, first in zip(ends, self._first, strict=True)]
        work, columns = self._work, self._columns
        found: list[tuple[Mapping[str, Statistics], Sequence[float]]]
        if self._ran is None:
            parts = [self.table.slice(start, count) for start, count in zip(self._starts, counts, strict=False)]
            found = [
                (scalar_statistics(part, columns), recent_values(part, columns, work.objective, work.recent))
                for part in parts
            ]
        else:
            ran = first_rows(self._ran, counts[0])
            scalars, recent = statistics_of(ran, columns), recent_of(ran, columns, work.objective, work.recent)
            found = [(scalars[lane], recent[lane]) for lane in self._lanes]
        return [
            replace(outcome, rows=count, first=first, scalars=each, recent=last)
            for outcome, count, first, (each, last) in zip(outcomes, counts, self._first, found, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Compared:
    """How the first and the last lane of a chunk differ from the same points run alone."""

    difference: Difference | None = None  # the largest
    reason: str | None = None  # why all points run alone, if they do
    warnings: Mapping[int, str] = field(default_factory=dict)  # by point


def _compared(
    work: Work,
    planned: Planned,
    tasks: Sequence[Task],
    rows: _Rows,
    weights: pyarrow.Table,
    going_on: Callable[[], None],
) -> _Compared:
    largest: tuple[Difference, Task, tuple[pyarrow.Table, pyarrow.Table], Ended] | None = None
    for place in dict.fromkeys((0, len(tasks) - 1)):
        task = tasks[place]
        lane = rows.of(place), weights.slice(place, 1).drop_columns(["point"])
        ended = run_point(work, task, planned.plan if task.overrides == planned.overrides else None)
        difference = _difference(lane, ended)
        if difference is None:
            continue
        if work.exact:
            return _Compared(difference, difference.text)
        if largest is None or difference.size > largest[0].size:
            largest = difference, task, lane, ended
    return _Compared() if largest is None else _judged(work, *largest, going_on)


def _judged(
    work: Work,
    difference: Difference,
    task: Task,
    lane: tuple[pyarrow.Table, pyarrow.Table],
    ended: Ended,
    going_on: Callable[[], None],
) -> _Compared:
    """What becomes of a chunk whose lanes are close only, by the one that differs most."""
    if difference.column is None or ended.table is None or ended.weights is None:
        return _Compared(difference, difference.text, {task.index: f"point {task.index}: {difference.text}"})
    judgement = judge(work, task, lane, (ended.table, ended.weights[1]), going_on)
    warnings = {} if judgement.warning is None else {task.index: judgement.warning}
    if judgement.column is None:
        return _Compared(difference, None, warnings)
    reason = f"`{judgement.column}` of a lane differs from the run alone by more than rounding explains"
    return _Compared(difference, reason, warnings)


def _difference(lane: tuple[pyarrow.Table, pyarrow.Table], ended: Ended) -> Difference | None:
    """How a lane differs from the same point run alone; None if every bit is equal."""
    if ended.outcome.status not in ("finished", "paused") or ended.weights is None or ended.table is None:
        return Difference("the run alone fails", math.inf)
    found = difference_between(lane[0], ended.table)
    other = difference_between(lane[1], ended.weights[1])
    return other if found is None or (other is not None and other.size > found.size) else found


def _is_alike(work: Work, task: Task, literals: Literals) -> bool:
    """Whether the plan of a point differs only in numbers of the expression, which are added to `literals`."""
    try:
        return literals.add(_planned(work, task))
    except SteprunError:
        return False


def _planned(work: Work, task: Task) -> Plan:
    return compile(overridden(work.base, task.overrides), allowed=work.allowed, limits=work.limits)


def _alone(tasks: Sequence[Task], reason: str) -> list[Task]:
    return [replace(task, chunk=0, alone=reason) for task in tasks]
