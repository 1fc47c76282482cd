"""`expect` steps of lanes: each lane is compared; one that differs runs again alone, which reports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from runner.engine.lanes.operations.alone import lane_of
from runner.engine.lanes.watch import LaneWatch
from runner.engine.session import Session
from runner.engine.steps.expectations import mismatch
from runner.engine.steps.step_code import Run
from runner.plan.program.instructions import Expect, Expectation


def expect(session: Session, argument: Expect, loops: tuple[int, ...], due: Callable[[], Tensor]) -> Run:
    """Bind an `expect` step to the tensors of all lanes.

    Args:
        due: returns the lanes in which it runs: bool `(lanes,)`.
    """
    checks = [_check(session, entry, loops) for entry in argument.expectations]

    def run() -> None:
        lanes = due().nonzero().flatten().tolist()
        for check in checks if lanes else []:
            check(lanes)

    return run


def _check(session: Session, entry: Expectation, loops: tuple[int, ...]) -> Callable[[Sequence[int]], None]:
    """A function that compares some lanes, and notes those that differ."""
    binding = session.binding
    watch: Any = session.watch
    assert isinstance(watch, LaneWatch)
    held = None if entry.field is None else binding.state.parameters.get(entry.field.removesuffix(".grad"))
    if entry.actual is None:

        def absent(lanes: Sequence[int]) -> None:
            if held is not None and held.grad is not None:
                watch.doubt(lanes)

        return absent
    actual = binding.call(entry.actual, loops, observes=True)
    expected = None if entry.expected is None else binding.call(entry.expected, loops, observes=True)

    def compare(lanes: Sequence[int]) -> None:
        if held is not None and held.grad is None:
            watch.doubt(lanes)
            return
        found = actual()[0]
        value = entry.value if expected is None else expected()[0]
        for lane in lanes:
            if mismatch(lane_of(found, lane), _part(value, lane), entry.rtol, entry.atol) is not None:
                watch.doubt([lane])

    return compare


def _part(value: Any, lane: int) -> Any:
    return lane_of(value, lane) if isinstance(value, Tensor) else value
