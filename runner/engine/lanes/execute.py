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
from runner.engine.rows import AnyRows, Rows
from runner.engine.session import SaveCheckpoint, Session
from runner.engine.state import State
from runner.engine.steps.step_code import Run
from runner.plan.checks.engines.stackable import reads_tensors
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
        bind = partial(_bind_lanes, whole, streams, leaving)
        jump = partial(bind_jump, leaving=leaving) if parts else eager.bind_jump
        with Drawing(streams) if plan.random else nullcontext():
            others, several = _binding(plan, lanes, bind)
            run = eager.execute_several(
                plan,
                state,
                shared=True,
                watch=cast(Any, watch),
                bind=others,
                jump=jump,
                checkpoint=save,
                several=several,
            )
            for piece in run:
                leaving.add(piece)
                going_on()
        return _collected(plan, state, leaving, watch, parts)


def _bind_lanes(
    whole: Plan, streams: Streams, leaving: Leaving, session: Session, position: int, action: Action
) -> Run:
    """Bind a step of the plan without conditions; lanes leave by the condition that the whole plan has there."""
    before = whole.program[position]
    assert isinstance(before, Action)
    when = before.when if reads_tensors(before.when) else None
    return bind_step(session, position, action, streams.draw, leaving, when)


def _collected(plan: Plan, state: State, leaving: Leaving, watch: LaneWatch, parts: bool) -> Ran:
    """The rows that were collected, by column, and the weights at the end."""
    lanes, pieces = len(leaving.here), leaving.pieces
    return Ran(
        numbers=[number for piece in pieces for number in _numbers(piece)],
        steps=[piece.step for piece in pieces for _ in _numbers(piece)],
        paths=[path for piece in pieces for path in _paths(piece)],
        iterations=[iteration for piece in pieces for iteration in _iterations(piece)],
        columns=[_column(pieces, place, lanes) for place in range(len(plan.columns))],
        weights={name: _stack_of(parameter, lanes) for name, parameter in state.parameters.items()},
        sound=watch.sound_lanes().tolist(),
        here=leaving.here,
        has=torch.stack(leaving.masks, 1) if parts and pieces else None,
    )


def _stays(lanes: Tensor, kept: bool) -> None:
    raise NotStackable("its runs take other steps")


def _binding(plan: Plan, lanes: Sequence[Lane], others: eager.Bind) -> tuple[eager.Bind, eager.Several]:
    """How steps are bound: those that other engines than the eager one run, and all others."""
    if plan.config.engine != "xla":
        return others, {}
    from runner.engine.lanes.translated.trainer import LaneBinder  # imports JAX

    binder = LaneBinder(plan, lanes, others)
    return binder, binder.several


def _numbers(piece: AnyRows) -> Sequence[int]:
    return range(piece.number, piece.number + len(piece)) if isinstance(piece, Rows) else [piece.number]


def _iterations(piece: AnyRows) -> Sequence[int]:
    return [piece.first + place for place in piece.places] if isinstance(piece, Rows) else [piece.iteration]


def _paths(piece: AnyRows) -> Sequence[str]:
    if not isinstance(piece, Rows):
        return [piece.path]
    before, after = piece.path
    return [f"{before}{iteration}{after}" for iteration in _iterations(piece)]


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


def _column(pieces: Sequence[AnyRows], place: int, lanes: int) -> LaneColumn:
    present: list[bool] = []
    single: list[Tensor] = []  # the values of rows since the last part
    parts: list[Tensor] = []  # (lanes, rows, *s)
    shapes: set[torch.Size] = set()

    def join() -> None:
        if single:
            parts.append(torch.stack(single, 1))
            single.clear()

    for piece in pieces:
        value = piece.block.columns[place] if isinstance(piece, Rows) else piece.values[place]
        present += [value is not None] * len(_numbers(piece))
        if value is None:
            continue
        if isinstance(piece, Rows):
            join()
            parts.append(_part(piece, place, value, lanes))
            shapes.add(parts[-1].shape[2:])
        else:
            single.append(_stack_of(value, lanes))
            shapes.add(single[-1].shape[1:])
        if len(shapes) > 1:
            return _of_shapes(pieces, place, lanes)
    if not any(present):
        return LaneColumn(None, present)
    join()
    return LaneColumn(parts[0] if len(parts) == 1 else torch.cat(parts, 1), present)


def _part(piece: Rows, place: int, value: Tensor, lanes: int) -> Tensor:
    """A column of rows that were computed together: `(lanes, rows, *s)`."""
    if piece.block.stacked[place]:
        return value[: len(piece)].movedim(1, 0)  # only the rows that the log keeps are there
    found = _stack_of(value, lanes)
    return found[:, None].expand(lanes, len(piece), *found.shape[1:])


def _of_shapes(pieces: Sequence[AnyRows], place: int, lanes: int) -> LaneColumn:
    """A column whose shape differs between rows."""
    values: list[Tensor | None] = []
    for piece in pieces:
        value = piece.block.columns[place] if isinstance(piece, Rows) else piece.values[place]
        if isinstance(piece, Rows) and value is not None:
            values += _part(piece, place, value, lanes).unbind(1)
        else:
            values += [None if value is None else _stack_of(value, lanes)] * len(_numbers(piece))
    present = [value is not None for value in values]
    return LaneColumn([value for value in values if value is not None], present)


def _stack_of(value: Tensor, lanes: int) -> Tensor:
    found = value.detach()
    return found.lanes if isinstance(found, LaneTensor) else found.expand(lanes, *found.shape)
