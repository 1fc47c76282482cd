"""Runs all lanes through the eager engine, and collects their rows by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from runner.engine import eager
from runner.engine.lanes.leaving import Leaving, bind_jump, may_part, without_conditions
from runner.engine.lanes.operations.choosing import Choosing
from runner.engine.lanes.operations.tensor import LaneTensor, NotStackable, handled_by
from runner.engine.lanes.random import Drawing, Streams
from runner.engine.lanes.starting import Lane, lane_state
from runner.engine.lanes.steps import bind_step
from runner.engine.lanes.watch import LaneWatch
from runner.engine.session import SaveCheckpoint, Session
from runner.engine.state import State
from runner.engine.steps.step_code import Run
from runner.plan.checks.stackable import reads_tensors
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action


@dataclass(frozen=True, slots=True)
class LaneColumn:
    """One column of the rows of all lanes."""

    values: Tensor | Sequence[Tensor] | None
    """`(lanes, rows where it exists, *s)`, or `(lanes, *s)` for each row if shapes differ; None if it never exists."""
    present: Sequence[bool]  # for each row


@dataclass(frozen=True, slots=True)
class Ran:
    """The rows of all lanes, and their weights after the last one."""

    numbers: Sequence[int]
    steps: Sequence[str]
    paths: Sequence[str]
    iterations: Sequence[int]
    columns: Sequence[LaneColumn]  # aligned with those of the plan
    weights: Mapping[str, Tensor]  # (lanes, *s)
    sound: Sequence[bool]  # for each lane: whether it has ended well; if not, run it alone
    here: Tensor  # bool `(lanes,)`: the lanes that have come to the end; the others left before
    has: Tensor | None  # bool `(lanes, rows)`: the rows of each lane; None: each has all


class Splitting(Protocol):
    """Keeps the state of lanes that part from the others."""

    def begin(self, plan: Plan, state: State, leaving: Leaving, watch: LaneWatch) -> SaveCheckpoint:
        """The state of all lanes is there; returns what saves it after the last loop."""
        ...

    def left(self, lanes: Tensor, kept: bool) -> None:
        """Some lanes leave, bool `(lanes,)`; the state is where they go on."""
        ...


def run_lanes(
    plan: Plan,
    lanes: Sequence[Lane],
    *,
    exact: bool = True,
    going_on: Callable[[], None] = lambda: None,
    restore: Callable[[State], None] | None = None,
    splitting: Splitting | None = None,
    chosen: dict[Any, Any] | None = None,
) -> Ran:
    """Run all lanes to the end.

    Args:
        plan: a plan of lanes, which `unstackable` refuses for no reason.
        exact: whether each lane must have the bits of the run alone.
        going_on: called after each row; what it raises ends the run.
        restore: puts a new state of all lanes where they go on.
        splitting: keeps the state of lanes that leave; needed where some may.
        chosen: how operations were computed before, for the lanes of the same plan.
    Raises:
        NotStackable: an operation cannot be computed for lanes.
        RunError: some lane fails.
    """
    streams = Streams([lane.seed for lane in lanes])
    choosing = Choosing(exact, streams.draw, {} if chosen is None else chosen)
    parts = may_part(plan)
    whole, plan = plan, without_conditions(plan) if parts else plan
    with handled_by(choosing.run):
        state = lane_state(plan, lanes, choosing)
        streams.state = state
        if restore is not None:
            restore(state)
        leaving = Leaving(plan, len(lanes), _stays if splitting is None else splitting.left)
        watch = LaneWatch(plan, state, len(lanes))
        save = None if splitting is None else splitting.begin(plan, state, leaving, watch)

        def bind(session: Session, position: int, action: Action) -> Run:
            before = whole.program[position]
            assert isinstance(before, Action)
            return bind_step(
                session, position, action, streams.draw, leaving, before.when if reads_tensors(before.when) else None
            )

        jump = partial(bind_jump, leaving=leaving) if parts else eager.bind_jump
        with Drawing(streams) if plan.random else nullcontext():
            run = eager.execute(plan, state, shared=True, watch=cast(Any, watch), bind=bind, jump=jump, checkpoint=save)
            for row in run:
                leaving.add(row)
                going_on()
        weights = {name: _stack_of(parameter, len(lanes)) for name, parameter in state.parameters.items()}
        rows = leaving.rows
        return Ran(
            [row.number for row in rows],
            [row.step for row in rows],
            [row.path for row in rows],
            [row.iteration for row in rows],
            [_column([row.values[place] for row in rows], len(lanes)) for place in range(len(plan.columns))],
            weights,
            watch.sound_lanes().tolist(),
            leaving.here,
            torch.stack(leaving.masks, 1) if parts and rows else None,
        )


def _stays(lanes: Tensor, kept: bool) -> None:
    raise NotStackable("its runs part")


def first_rows(ran: Ran, count: int) -> Ran:
    """The first rows of all lanes."""
    columns = []
    for column in ran.columns:
        present = list(column.present)[:count]
        values = column.values if any(present) else None
        if values is not None:
            values = values[:, : sum(present)] if isinstance(values, Tensor) else values[: sum(present)]
        columns.append(LaneColumn(values, present))
    return replace(
        ran,
        numbers=ran.numbers[:count],
        steps=ran.steps[:count],
        paths=ran.paths[:count],
        iterations=ran.iterations[:count],
        columns=columns,
    )


def _column(values: Sequence[Tensor | None], lanes: int) -> LaneColumn:
    present = [value is not None for value in values]
    found = [_stack_of(value, lanes) for value in values if value is not None]
    if not found:
        return LaneColumn(None, present)
    if any(value.shape != found[0].shape for value in found):
        return LaneColumn(found, present)
    return LaneColumn(torch.stack(found, 1), present)


def _stack_of(value: Tensor, lanes: int) -> Tensor:
    found = value.detach()
    return found.lanes if isinstance(found, LaneTensor) else found.expand(lanes, *found.shape)
