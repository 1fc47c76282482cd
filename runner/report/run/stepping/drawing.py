"""Counts how often a run had drawn random numbers before each of its rows: each evaluation has a stream of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.plan import Plan
from runner.plan.program.instructions import Action, Assign, Backward, Forward, Step, Train
from runner.report.reading.rows import Rows

MOST_ROWS = 50_000
"""The most rows of a run whose random numbers are drawn again."""

_ITERATION = re.compile(r"\[[^]]*\]")


class NotPossible(Exception):
    """A row cannot be computed again; the message says why."""


def draws_before(plan: Plan, rows: Rows) -> list[int]:
    """How many streams of random numbers a run has used before each row, those of `evaluate` and `when` aside.

    Raises:
        NotPossible: the log does not have every step, or not how often one draws.
    """
    if plan.log.every != 1:
        raise NotPossible("the log leaves out rows, and with them how often random numbers were drawn")
    if len(rows) > MOST_ROWS:
        raise NotPossible(f"it draws random numbers, and the run has more than {MOST_ROWS:,} rows")
    actions = [each for each in plan.program if isinstance(each, Action)]
    draws = {_ITERATION.sub("[]", action.path): _draws(action) for action in actions}
    if any(count is None for count in draws.values()):
        raise NotPossible("the log does not say how often micro-batches draw random numbers")
    found, count = [], 0
    for path in _paths(rows):
        found.append(count)
        count += draws.get(_ITERATION.sub("[]", path)) or 0
    return found


def _paths(rows: Rows) -> Iterator[str]:
    for part in rows.parts:
        yield from part.read(lambda table: table.column("path").to_pylist(), ["path"])


def _draws(action: Action) -> int | None:
    """How many streams a step uses each time; None if that depends on its batches."""
    match action.argument:
        case Train(evaluation=evaluation, accumulate=times, ends_with=ends):
            draws = any(computation.random for computation in evaluation.computations())
            return None if draws and times > 1 and ends else times * draws
        case Backward(evaluation, gradient):
            draws = any(computation.random for computation in evaluation.computations())
            return draws + (gradient is not None and gradient.random)
        case Step(optimizers=optimizers, closure=closure):
            draws = closure is not None and any(computation.random for computation in closure.computations())
            return len(optimizers) * draws
        case Assign(computations=computations):
            return sum(computation.random for computation in computations)
        case Forward(forward):
            return int(any(computation.random for computation in forward.computations()))
    return 0
