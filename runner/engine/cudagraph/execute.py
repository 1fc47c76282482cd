"""The `cudagraph` engine: runs the eager engine's program, but records each `train` step once and replays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.engine import eager
from runner.engine.cudagraph.addresses import Addresses
from runner.engine.cudagraph.capture import Capture, CudaGraphs
from runner.engine.cudagraph.train import CapturedTrain
from runner.engine.rows import Row
from runner.engine.session import Session
from runner.engine.state import State
from runner.engine.steps.step_code import Run
from runner.engine.watch.watch import Watch
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Train


def execute(
    plan: Plan,
    state: State | None = None,
    *,
    checkpoint: Callable[[str | None], None] | None = None,
    shared: bool = False,
    watch: Watch | None = None,
    capture: Capture | None = None,
) -> Iterator[Row]:
    """Runs a plan as the eager engine does, and yields the same rows, bit for bit.

    Args:
        plan: from `compile`, for `engine: cudagraph`.
        state, checkpoint, shared, watch: as in the eager engine.
        capture: records the steps; CUDA graphs by default.
    Raises:
        RunError: a step fails, or cannot be recorded; the problem names the place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    bind = _Binder(CudaGraphs(plan.device) if capture is None else capture)
    return eager.execute(plan, state, checkpoint=checkpoint, shared=shared, watch=watch, bind=bind)


class _Binder:
    """Binds `train` steps to a recorder, and other steps as the eager engine does."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._addresses: Addresses | None = None

    def __call__(self, session: Session, position: int, action: Action) -> Run:
        addresses = self._addresses = self._addresses or Addresses(session.binding)
        if isinstance(action.argument, Train):
            return CapturedTrain(session, action.argument, action.loops, addresses, self._capture).run
        return eager.bind_step(session, position, action)
