"""Runs one point of a sweep in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow
import pyarrow.compute
import torch

from runner.config import Config, overridden
from runner.engine import execute, initial_state
from runner.engine.rows import Row
from runner.engine.state import State
from runner.engine.watch.watch import Watch
from runner.errors import SteprunError
from runner.plan import Plan, PlanLimits, compile
from runner.plan.memory import limited_data
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns
from runner.record.rows.arrow import empty_table, schema_of, table_of
from runner.record.rows.batch import blank_of, pack
from runner.record.rows.storage import StoredColumn, stored_column
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task
from runner.sweep.record.part_files import Ended
from runner.sweep.record.states import load_state
from runner.sweep.record.statistics import recent_values, scalar_statistics
from runner.sweep.rungs import Kept, cut, go_on

BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Work:
    """What every point of a sweep shares."""

    base: Config  # without `sweep`
    directory: Path
    allowed: tuple[Path, ...] = ()
    limits: PlanLimits | None = None
    objective: str | None = None  # the column that the sweep looks at
    recent: int = 0  # number of its last values to keep
    exact: bool = True  # whether lanes must have the bits of runs alone


def run_point(work: Work, task: Task, plan: Plan | None = None) -> Ended:
    """Run one point, until its rung or its end.

    Args:
        plan: its plan, if there is one already.
    """
    began = time.perf_counter()

    def outcome(status: str, failure: str | None = None) -> Outcome:
        seconds = round(time.perf_counter() - began, 6)
        return Outcome(task.index, task.identity, task.overrides, status, seconds, failure=failure, rung=task.rung)

    try:
        if plan is None:
            plan = compile(overridden(work.base, task.overrides), allowed=work.allowed, limits=work.limits)
        part = None if task.until is None else cut(plan, task.until)
        run = _Running(work, task, plan if part is None else part)
        failure = run.rows_until_the_end()
        if part is not None and failure is None and run.kept.contents is None:  # its loop has ended before
            run = _Running(work, task, plan)
            failure = run.rows_until_the_end()
            part = None
    except (SteprunError, MemoryError) as error:
        return Ended(outcome("failed", failure_text(error)))
    status = "failed" if failure is not None else "finished" if part is None else "paused"
    ended = run.statistics(outcome(status, failure), run.table)
    if status == "paused":
        kept = run.table.filter(pyarrow.compute.less(run.table.column("row"), run.kept.row))
        ended = replace(ended, kept=run.statistics(ended, kept))
    state = (run.kept.contents, run.kept.tensors or {}) if status == "paused" else None
    return Ended(ended, run.columns, run.table, weights_of(run.state), state)


class _Running:
    """A point while it runs."""

    def __init__(self, work: Work, task: Task, plan: Plan) -> None:
        self.plan = plan
        self.state = initial_state(plan)
        self.kept = Kept()
        self.columns = [stored_column(column) for column in plan.columns]
        self.table = empty_table(self.columns)
        self._work = work
        if task.state is not None:
            go_on(plan, self.state, *load_state(work.directory, task.state, task.identity))
        self.first = self.state.row

    def rows_until_the_end(self) -> str | None:
        """Run the plan, and keep its rows; returns why it failed, or None."""
        plan, state = self.plan, self.state
        watch = Watch(plan, state, lambda problem: None)
        rows = execute(plan, state, checkpoint=self.kept.keeps(plan, state), shared=True, watch=watch)
        tables: list[pyarrow.Table] = []
        failure = None
        try:
            with limited_data(plan.memory):
                for batch in _batches(row for row in rows if row.number >= self.first):
                    tables.append(_table(batch, self.columns))
        except (SteprunError, MemoryError) as error:
            failure = failure_text(error)
        self.table = pyarrow.concat_tables([*tables, self.table])
        return failure

    def statistics(self, outcome: Outcome, table: pyarrow.Table) -> Outcome:
        """An outcome with what its rows say."""
        return replace(
            outcome,
            rows=len(table),
            first=self.first,
            scalars=scalar_statistics(table, self.columns),
            recent=recent_values(table, self.columns, self._work.objective, self._work.recent),
        )


def failure_text(error: BaseException) -> str:
    """The first problem of an error on one line, with its place."""
    if isinstance(error, SteprunError):
        problem = error.problems[0]
        place = (
            f"{Path(problem.source).name}:{problem.line}:{problem.column}: " if problem.source and problem.line else ""
        )
        return " ".join(f"{place}{problem.message}".split())
    return f"{type(error).__name__}: {error}"


def weights_of(state: State) -> tuple[Sequence[StoredColumn], pyarrow.Table]:
    """The parameters as they are, as a table of one row."""
    declared = [
        Column(name, "weight", parameter.dtype, tuple(parameter.shape)) for name, parameter in state.parameters.items()
    ]
    columns = [stored_column(column) for column in declared]
    values = tuple(parameter.detach() for parameter in state.parameters.values())
    row = Row(state.row, "end", "end", 0, Columns(tuple(declared)), values)
    return columns, _table([row], columns)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yields the rows in lists; also those before a failure."""
    batch: list[Row] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) >= BATCH_ROWS:
                yield batch
                batch = []
    except (SteprunError, MemoryError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _table(rows: Sequence[Row], columns: Sequence[StoredColumn]) -> pyarrow.Table:
    with torch.no_grad():
        batch = pack(rows, columns, [blank_of(column) for column in columns])
        return table_of(batch, columns, schema_of(columns))
