"""Runs the lanes of one chunk, and compares two of them with runs alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow

from runner.config import overridden
from runner.engine.lanes.execute import Ran, first_rows, run_lanes
from runner.engine.lanes.operations.tensor import NotStackable
from runner.engine.lanes.starting import Lane
from runner.errors import SteprunError
from runner.plan import Plan, compile
from runner.plan.memory import limited_data
from runner.record.rows.storage import StoredColumn, stored_column
from runner.sweep.lanes.comparing import difference_between
from runner.sweep.lanes.literals import Literals
from runner.sweep.lanes.rows import recent_of, rows_table, statistics_of, weights_table
from runner.sweep.lanes.states import LaneStates, go_on_together
from runner.sweep.lanes.varying import varying
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task
from runner.sweep.record.part_files import Weights
from runner.sweep.record.states import States
from runner.sweep.rungs import cut
from runner.sweep.single import Work, run_point

NOT_SOUND = "it may fail"
"""Why a lane that computed something not finite, or something unexpected, runs again alone."""


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
        tasks: points that differ only in what lanes may have of their own.
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
            if lane is None or (may_vary.in_expression(own) and not _is_alike(work, task, literals)):
                invalid.append(replace(task, chunk=0, alone=NOT_SOUND))
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
        restore = go_on_together(work.directory, [task for task, _ in valid])
        states = LaneStates()
        with limited_data(plan.memory):
            ran = run_lanes(
                numbered if part is None else part,
                lanes,
                exact=work.exact,
                going_on=go_on,
                restore=restore,
                keeping=None if part is None else states.keeping,
            )
        if part is not None and states.contents is None:
            raise NotStackable("its last loop ends before the points are compared")
    except NotStackable as error:
        return Chunk(alone=_alone(tasks, str(error)))
    except (SteprunError, MemoryError) as error:
        return Chunk(alone=_alone(tasks, f"its lanes failed: {type(error).__name__}"))
    running = [task for task, _ in valid]
    seconds = (time.perf_counter() - began) / len(running)
    return _result(work, Planned(plan, tasks[0].overrides), running, ran, seconds, invalid, states)


def _result(
    work: Work,
    planned: Planned,
    tasks: Sequence[Task],
    ran: Ran,
    seconds: float,
    invalid: Sequence[Task],
    states: LaneStates,
) -> Chunk:
    plan, pauses = planned.plan, states.contents is not None
    sound = [lane for lane, fine in enumerate(ran.sound) if fine]
    alone = [*invalid, *_alone([task for task, fine in zip(tasks, ran.sound, strict=True) if not fine], NOT_SOUND)]
    columns = [stored_column(column) for column in plan.columns]
    if not sound:
        return Chunk(alone=alone)
    difference = None
    for lane in dict.fromkeys((sound[0], sound[-1])):
        found = _difference(work, planned, tasks[lane], ran, lane, columns)
        if found is None:
            continue
        if work.exact:
            return Chunk(alone=[*alone, *_alone([tasks[each] for each in sound], found)])
        difference = found
    outcomes = [
        Outcome(
            tasks[lane].index,
            tasks[lane].identity,
            tasks[lane].overrides,
            "paused" if pauses else "finished",
            round(seconds, 6),
            rung=tasks[lane].rung,
            alone="",
            difference=difference,
        )
        for lane in sound
    ]
    whole = _with_statistics(work, outcomes, ran, columns, sound)
    if pauses:
        again = first_rows(ran, sum(number < states.row for number in ran.numbers))
        kept = _with_statistics(work, outcomes, again, columns, sound)
        whole = [replace(outcome, kept=part) for outcome, part in zip(whole, kept, strict=True)]
    indices = [tasks[lane].index for lane in sound]
    rows = rows_table(ran, columns, indices, sound)
    paused = {tasks[lane].identity: states.of(lane) for lane in sound} if pauses else {}
    return Chunk(whole, columns, rows, weights_table(plan, ran, indices, sound), alone, paused)


def _with_statistics(
    work: Work, outcomes: Sequence[Outcome], ran: Ran, columns: Sequence[StoredColumn], lanes: Sequence[int]
) -> list[Outcome]:
    """The outcomes of some lanes with what their rows say."""
    scalars = statistics_of(ran, columns)
    recent = recent_of(ran, columns, work.objective, work.recent)
    first = ran.numbers[0] if ran.numbers else 0
    return [
        replace(outcome, rows=len(ran.numbers), first=first, scalars=scalars[lane], recent=recent[lane])
        for outcome, lane in zip(outcomes, lanes, strict=True)
    ]


def _difference(
    work: Work, planned: Planned, task: Task, ran: Ran, lane: int, columns: Sequence[StoredColumn]
) -> str | None:
    """How a lane differs from the same point run alone; None if every bit is equal."""
    ended = run_point(work, task, planned.plan if task.overrides == planned.overrides else None)
    if ended.outcome.status not in ("finished", "paused") or ended.weights is None or ended.table is None:
        return "a run alone fails"
    own = rows_table(ran, columns, [task.index], [lane]).drop_columns(["point"])
    found = difference_between(own, ended.table)
    if found is None:
        table = weights_table(planned.plan, ran, [task.index], [lane])[1].drop_columns(["point"])
        found = difference_between(table, ended.weights[1])
    return found


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
