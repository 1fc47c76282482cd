"""The steps of lanes that differ from those of a run alone; a step with `when` on a tensor runs in some lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from runner.engine import eager
from runner.engine.lanes.expectations import expect
from runner.engine.lanes.following import keep_best, reduce_on_plateau
from runner.engine.lanes.leaving import Leaving, Masked, condition
from runner.engine.lanes.operations.tensor import Handler, LaneTensor, NotStackable
from runner.engine.lanes.training import bind_train
from runner.engine.session import Session
from runner.engine.steps.step_code import Run
from runner.plan.program.instructions import (
    Action,
    Argument,
    Assign,
    Checkpoint,
    Expect,
    KeepBest,
    Plateau,
    Train,
    When,
)
from runner.plan.rows.layout import Values

T = TypeVar("T")

Due = Callable[[], Tensor]
"""Returns the lanes in which a step runs now: bool `(lanes,)`."""


def bind_step(
    session: Session, position: int, action: Action, draw: Handler, leaving: Leaving, when: When | None
) -> Run:
    """Bind a step to the tensors of all lanes.

    Args:
        draw: computes an operation that draws random numbers, for each lane.
        when: a condition on tensors, which some lanes fulfil.
    """
    if isinstance(action.argument, Train):
        return bind_train(session, action.argument, action.loops, draw)
    due = _here(leaving) if when is None else _fulfilling(session, action, when, leaving)
    bind = _BINDERS.get(type(action.argument))
    if bind is not None and (when is not None or type(action.argument) is not Assign):
        return bind(session, position, action, due, len(leaving.here))
    return eager.bind_step(session, position, action)


def _here(leaving: Leaving) -> Due:
    return lambda: leaving.here


def _fulfilling(session: Session, action: Action, when: When, leaving: Leaving) -> Due:
    holds = condition(session.binding, when, action.loops, len(leaving.here))
    return lambda: leaving.here & holds()


def _checkpoint(session: Session, position: int, action: Action, due: Due, lanes: int) -> Run:
    """A sweep keeps no checkpoints; only the condition is computed, because it may fail."""

    def run() -> None:
        due()

    return run


def _keep_best(session: Session, position: int, action: Action, due: Due, lanes: int) -> Run:
    note = keep_best(session, _of(action, KeepBest), position, lanes)
    return lambda: note(due())


def _plateau(session: Session, position: int, action: Action, due: Due, lanes: int) -> Run:
    binding = session.binding
    reduce = reduce_on_plateau(session, _of(action, Plateau), position, lanes)

    def run() -> Values | None:
        fresh = reduce(due())
        return Masked(binding.layout.values(tuple(binding.latest)), fresh) if fresh.any() else None

    return run


def _expect(session: Session, position: int, action: Action, due: Due, lanes: int) -> Run:
    return expect(session, _of(action, Expect), action.loops, due)


def _assign(session: Session, position: int, action: Action, due: Due, lanes: int) -> Run:
    """Assign in all lanes, and then give the others back what they had."""
    binding, argument = session.binding, _of(action, Assign)
    assign = eager.bind_step(session, position, action)
    watch: Any = session.watch
    targets = [_target(session, *target.partition(".")[::2]) for target in argument.targets]
    keeps_state = any(target.partition(".")[2] not in ("", "grad") for target in argument.targets)

    def run() -> Values | None:
        assigned = due()
        if not assigned.any():
            return None
        before = [read() for read in targets]
        with watch.only(assigned):
            assign()
        others = ~assigned
        for old, read in zip(before, targets, strict=True):
            read()[others] = old[others]  # rows do not have this memory yet
        if keeps_state:
            binding.capture_state()
        return Masked(binding.layout.values(tuple(binding.latest)), assigned)

    return run


def _target(session: Session, name: str, entry: str) -> Callable[[], Tensor]:
    """A function that returns the memory of all lanes of what an `assign` step writes."""
    parameter: Any = session.binding.state.parameters[name]
    stepper = None if entry in ("", "grad") else session.binding.stepper(name)

    def read() -> Tensor:
        if stepper is None:
            value = parameter.grad if entry else parameter
        else:
            value = stepper.state(name).get(entry)
        if not isinstance(value, LaneTensor):
            raise NotStackable(f"`{name}.{entry}` exists only in some runs, or is the same in all")
        return value.lanes

    return read


def _of(action: Action, kind: type[T]) -> T:
    assert isinstance(action.argument, kind)
    return action.argument


_BINDERS: Mapping[type[Argument], Callable[[Session, int, Action, Due, int], Run]] = {
    Assign: _assign,
    Checkpoint: _checkpoint,
    Expect: _expect,
    KeepBest: _keep_best,
    Plateau: _plateau,
}
