"""Runs one point of a sweep in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow
import torch

from runner.config import Config, overridden
from runner.engine import execute, initial_state
from runner.engine.rows import Columns, Row
from runner.engine.state import State
from runner.engine.watch.watch import Watch
from runner.errors import SteprunError
from runner.plan import Plan, PlanLimits, compile
from runner.plan.memory import limited_data
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import schema_of, table_of
from runner.record.rows.batch import blank_of, pack
from runner.record.rows.storage import StoredColumn, stored_column
from runner.sweep.points.outcome import Outcome
from runner.sweep.points.task import Task
from runner.sweep.record.statistics import recent_values, scalar_statistics

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


def run_point(
    work: Work, task: Task
) -> tuple[Outcome, Sequence[StoredColumn], list[pyarrow.Table], tuple[Sequence[StoredColumn], pyarrow.Table] | None]:
    """Run one point: its outcome, the columns of its rows, its rows, and its weights."""
    began = time.perf_counter()

    def outcome(status: str, failure: str | None = None) -> Outcome:
        seconds = round(time.perf_counter() - began, 6)
        return Outcome(task.index, task.identity, task.overrides, status, seconds, failure=failure)

    try:
        plan = compile(overridden(work.base, task.overrides), allowed=work.allowed, limits=work.limits)
        state = initial_state(plan)
    except (SteprunError, MemoryError) as error:
        return outcome("failed", failure_text(error)), (), [], None
    columns = [stored_column(column) for column in plan.columns]
    tables: list[pyarrow.Table] = []
    failure = None
    try:
        with limited_data(plan.memory):
            for rows in _batches(execute(plan, state, shared=True, watch=Watch(plan, state, lambda problem: None))):
                tables.append(_table(rows, columns))
    except (SteprunError, MemoryError) as error:
        failure = failure_text(error)
    found = outcome("finished" if failure is None else "failed", failure)
    table = pyarrow.concat_tables(tables) if tables else schema_of(columns).empty_table()
    ended = replace(
        found,
        rows=len(table),
        scalars=scalar_statistics(table, columns),
        recent=recent_values(table, work.objective, work.recent),
    )
    return ended, columns, [table], weights_of(plan, state)


def failure_text(error: BaseException) -> str:
    """The first problem of an error on one line, with its place."""
    if isinstance(error, SteprunError):
        problem = error.problems[0]
        place = (
            f"{Path(problem.source).name}:{problem.line}:{problem.column}: " if problem.source and problem.line else ""
        )
        return " ".join(f"{place}{problem.message}".split())
    return f"{type(error).__name__}: {error}"


def weights_of(plan: Plan, state: State) -> tuple[Sequence[StoredColumn], pyarrow.Table]:
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
