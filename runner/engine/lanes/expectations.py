"""`expect` steps of lanes: each lane is compared; one that differs runs again alone, which reports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from runner.engine import eager
from runner.engine.lanes.operations.alone import lane_of
from runner.engine.lanes.operations.tensor import Handler
from runner.engine.lanes.training import bind_train
from runner.engine.lanes.watch import LaneWatch
from runner.engine.session import Session
from runner.engine.steps.expectations import mismatch
from runner.engine.steps.step_code import Run
from runner.plan.program.instructions import Action, Expect, Expectation, Train


def bind_step(session: Session, position: int, action: Action, draw: Handler) -> Run:
    """Bind a step to the tensors of all lanes.

    Args:
        draw: computes an operation that draws random numbers, for each lane.
    """
    if isinstance(action.argument, Train):
        return bind_train(session, action.argument, action.loops, draw)
    if not isinstance(action.argument, Expect):
        return eager.bind_step(session, position, action)
    checks = [_check(session, entry, action.loops) for entry in action.argument.expectations]

    def run() -> None:
        for check in checks:
            check()

    return run


def _check(session: Session, entry: Expectation, loops: tuple[int, ...]) -> Callable[[], None]:
    binding = session.binding
    watch: Any = session.watch
    assert isinstance(watch, LaneWatch)
    held = None if entry.field is None else binding.state.parameters.get(entry.field.removesuffix(".grad"))
    if entry.actual is None:

        def absent() -> None:
            if held is not None and held.grad is not None:
                watch.doubt()

        return absent
    actual = binding.call(entry.actual, loops, observes=True)
    expected = None if entry.expected is None else binding.call(entry.expected, loops, observes=True)

    def compare() -> None:
        if held is not None and held.grad is None:
            watch.doubt()
            return
        found = actual()[0]
        value = entry.value if expected is None else expected()[0]
        for lane in range(watch.count):
            if mismatch(lane_of(found, lane), _part(value, lane), entry.rtol, entry.atol) is not None:
                watch.doubt(lane)

    return compare


def _part(value: Any, lane: int) -> Any:
    return lane_of(value, lane) if isinstance(value, Tensor) else value
